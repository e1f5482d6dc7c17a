import { describe, expect, test } from 'vitest';
import { startPostgres } from '../../lab/postgres-server.ts';
import { expectEqual, leftovers, startMigration } from '../support/live-migration.ts';
import { readHistory } from '../support/readable-history.ts';
import { startTraffic, TRAFFIC_SCHEMA } from '../support/traffic.ts';

/** From nothing to a finished cutover, with writers that never pause until the source is fenced. */
describe.each([
  [14, 18],
  [15, 17],
  [17, 18],
])('a live migration from %i to %i', (from, to) => {
  test('ends with every row and sequence equal and nothing left behind', async () => {
    const [source, target] = await Promise.all([startPostgres({ major: from }), startPostgres({ major: to })]);
    await source.psql('postgres', 'CREATE DATABASE "My-Db"');
    await source.psql('My-Db', TRAFFIC_SCHEMA);
    const traffic = startTraffic(source.uri('My-Db'), 100);
    const migration = await startMigration({
      source,
      target,
      databases: ['My-Db'],
      plan: { stop: { fence: 'read-only' } },
    });
    try {
      await migration.phase('streaming');
      const before = traffic.committed();
      await migration.signalStop();
      const report = await migration.report();
      await traffic.stop();
      expect(traffic.committed()).toBeGreaterThan(before);
      expect(report.databases[0]).toMatchObject({ status: 'done', method: 'replication', walAfterMarkBytes: 0 });
      await expectEqual(source, target, ['My-Db']);
      expect(await leftovers(source, target, ['My-Db'])).toEqual([]);
      // About 235 steps and messages, and a measurement now and then; nothing of it for each table.
      expect((await readHistory(migration.client, `${migration.id}/My-Db`)).events).toBeLessThan(300);
    } finally {
      await traffic.stop();
      await migration.close();
      await Promise.all([source.remove(), target.remove()]);
    }
  });
});
