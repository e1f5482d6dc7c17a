import { afterAll, beforeAll, expect, test } from 'vitest';
import { startPostgres, type PostgresServer } from '../../lab/postgres-server.ts';
import { lockTable } from '../support/hold.ts';
import { expectEqual, leftovers, startMigration } from '../support/live-migration.ts';
import { startTraffic, TRAFFIC_SCHEMA } from '../support/traffic.ts';
import { eventually } from '../support/workflow-harness.ts';

const PATIENCE_MS = 180_000;

let source: PostgresServer;
let target: PostgresServer;

beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres({ major: 17 }), startPostgres({ major: 18 })]);
});

afterAll(() => Promise.all([source.remove(), target.remove()]));

test(
  'two databases that are locked and cut over as one: when one misses its deadline both let writers in again; nothing is lost',
  { timeout: PATIENCE_MS },
  async () => {
    const databases = ['deadline', 'beside'];
    const [database = ''] = databases;
    await source.psql('postgres', 'CREATE ROLE app LOGIN; GRANT pg_write_all_data, pg_read_all_data TO app');
    for (const name of databases) {
      await source.psql('postgres', `CREATE DATABASE ${name}`);
      await source.psql(name, TRAFFIC_SCHEMA);
    }
    const migration = await startMigration({
      source,
      target,
      databases,
      plan: { stop: { fence: 'lock-out', maxLagBytes: 1e12 } },
    });
    const write = () => databases.map((name) => startTraffic(source.uri(name, { user: 'app' }), 30));
    const first = write();
    let second: typeof first = [];
    const stop = (writers: typeof first) => Promise.all(writers.map((writer) => writer.stop()));
    try {
      await migration.phase('streaming');
      const lock = await lockTable(target, database, 'account');
      await lock.reached(); // by the apply worker
      await migration.handle.signal('stopReplication', { deadlineSeconds: 4, together: true });
      const { attention } = await eventually(
        () => migration.progress(),
        (progress) => progress.attention !== null,
        60_000,
      );
      expect(attention).toMatch(
        /^deadline: cut over: The cutover was not done 4 s after the fence began to go up\..* the replication goes on\./,
      );
      await stop(first);

      await eventually(
        () => migration.progress(),
        (progress) => progress.databases.every(({ phase }) => phase === 'streaming'),
        60_000,
      );
      second = write();
      await eventually(
        () => Promise.resolve(second.map((writer) => writer.committed())),
        (committed) => committed.every((count) => count > 30),
        60_000,
      );
      await lock.release();
      await migration.handle.executeUpdate('resolve', { args: [{ action: 'retry' }] });
      await migration.phase('streaming');
      await migration.handle.signal('stopReplication', { deadlineSeconds: 600, together: true });
      const report = await migration.report();
      for (const migrated of report.databases) {
        expect(migrated).toMatchObject({ status: 'done', walAfterMarkBytes: 0, cutover: { fence: 'lock-out' } });
        expect(migrated.warnings.join()).toContain(`GRANT CONNECT ON DATABASE "${migrated.database}" TO PUBLIC;`);
      }
      await stop(second);
      await expectEqual(source, target, databases);
      expect(await leftovers(source, target, databases)).toEqual([]);
    } finally {
      await stop([...first, ...second]);
      await migration.close();
    }
  },
);
