import { expect, test } from 'vitest';
import { startPostgres } from '../../lab/postgres-server.ts';
import { expectEqual, leftovers, startMigration } from '../support/live-migration.ts';
import { startTraffic } from '../support/traffic.ts';

/** Truncated between the snapshot and its copy, again and again: no snapshot could ever read this table. */
const TRUNCATING = [
  'TRUNCATE scratch',
  `INSERT INTO scratch SELECT g, 'x' FROM generate_series(1, 50) g`,
  'UPDATE scratch SET v = v || 1 WHERE id % 3 = 0',
  'DELETE FROM scratch WHERE id % 7 = 0',
];

test('a table that is truncated all the time arrives by its stream, while another is copied', async () => {
  const [source, target] = await Promise.all([startPostgres({ major: 17 }), startPostgres({ major: 18 })]);
  await source.psql('postgres', 'CREATE DATABASE busy');
  await source.psql(
    'busy',
    `CREATE TABLE scratch (id int PRIMARY KEY, v text);
     CREATE TABLE big (id int PRIMARY KEY, v text); INSERT INTO big SELECT g, repeat('y', 300) FROM generate_series(1, 50000) g`,
  );
  const traffic = startTraffic(source.uri('busy'), 200, TRUNCATING);
  const migration = await startMigration({
    source,
    target,
    databases: ['busy'],
    plan: { stop: { fence: 'read-only' }, onError: 'fail' },
  });
  try {
    await migration.phase('streaming');
    await migration.signalStop();
    const report = await migration.report();
    await traffic.stop();
    expect(report.databases[0]).toMatchObject({ status: 'done', walAfterMarkBytes: 0 });
    await expectEqual(source, target, ['busy']);
    expect(await leftovers(source, target, ['busy'])).toEqual([]);
  } finally {
    await traffic.stop();
    await migration.close();
    await Promise.all([source.remove(), target.remove()]);
  }
});
