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
  'a cutover that is not done within its deadline lets writers in again, and loses nothing of what they write',
  { timeout: PATIENCE_MS },
  async () => {
    const database = 'deadline';
    await source.psql('postgres', `CREATE DATABASE ${database}`);
    await source.psql(database, TRAFFIC_SCHEMA);
    const migration = await startMigration({
      source,
      target,
      databases: [database],
      plan: { stop: { fence: 'read-only', maxLagBytes: 1e12 } },
    });
    const first = startTraffic(source.uri(database), 30);
    let second: typeof first | null = null;
    try {
      await migration.phase('streaming');
      const lock = await lockTable(target, database, 'account');
      await lock.reached(); // by the apply worker
      await migration.handle.signal('stopReplication', { deadlineSeconds: 2 });
      const { attention } = await eventually(
        () => migration.progress(),
        (progress) => progress.attention !== null,
        60_000,
      );
      expect(attention).toMatch(/The cutover was not done 2 s after the fence went up\..* the replication goes on\./);
      await first.stop();

      second = startTraffic(source.uri(database), 30);
      await eventually(
        () => Promise.resolve(second?.committed() ?? 0),
        (committed) => committed > 30,
        60_000,
      );
      await lock.release();
      await migration.handle.executeUpdate('resolve', { args: [{ action: 'retry' }] });
      await migration.phase('streaming');
      await migration.handle.signal('stopReplication', { deadlineSeconds: 600 });
      expect((await migration.report()).databases[0]).toMatchObject({ status: 'done', walAfterMarkBytes: 0 });
      await second.stop();
      await expectEqual(source, target, [database]);
      expect(await leftovers(source, target, [database])).toEqual([]);
    } finally {
      await Promise.all([first.stop(), second?.stop()]);
      await migration.close();
    }
  },
);
