import { mkdtempSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startPostgres, type PostgresServer } from '../../lab/postgres-server.ts';
import { own } from '../../lab/processes.ts';
import { startTemporalServer } from '../../lab/temporal-server.ts';
import { workDir } from '../../lab/tools.ts';
import { HOLD_SCHEMA, holdAt, lockTable } from '../support/hold.ts';
import type { LiveMigration } from '../support/live-migration.ts';
import { startWorkerProcess } from '../../lab/worker-process.ts';
import { expectEqual, leftovers, startMigration } from '../support/live-migration.ts';
import { startTraffic } from '../support/traffic.ts';
import { eventually } from '../support/workflow-harness.ts';

/** A dead worker is noticed after the heartbeat timeout, 30 s: so these wait for it side by side. */
const PATIENCE_MS = 240_000;

let source: PostgresServer;
let target: PostgresServer;

beforeAll(async () => {
  const settings = { max_wal_senders: '40', max_replication_slots: '40', max_connections: '300' };
  const workers = { max_logical_replication_workers: '30', max_worker_processes: '60' };
  [source, target] = await Promise.all([
    startPostgres({ major: 17, settings }),
    startPostgres({ major: 18, settings: { ...settings, ...workers } }),
  ]);
});

afterAll(() => Promise.all([source.remove(), target.remove()]));

/** A database with writers on the source, and an empty one on the target, in which holds can be taken before it starts. */
async function prepare(database: string): Promise<void> {
  await source.psql('postgres', `CREATE DATABASE ${database}`);
  await source.psql(database, HOLD_SCHEMA);
  await target.psql('postgres', `CREATE DATABASE ${database}`);
}

const start = (database: string, options: { stop?: object; temporalAddress?: string } = {}): Promise<LiveMigration> =>
  startMigration({
    source,
    target,
    databases: [database],
    // A dead worker behind the fence is noticed late, and is not to end the cutover here.
    plan: { stop: { fence: 'read-only', deadlineSeconds: 600, ...options.stop } },
    ...(options.temporalAddress === undefined ? {} : { temporalAddress: options.temporalAddress }),
  });

/** Runs `story` while writers write, then ends the migration and compares. */
async function migrate(
  database: string,
  story: (migration: LiveMigration) => Promise<void>,
  options: { stop?: object; temporalAddress?: string } = {},
): Promise<void> {
  await prepare(database);
  const traffic = startTraffic(source.uri(database), 30);
  const migration = await start(database, options);
  try {
    await story(migration);
    if ((await migration.progress()).databases[0]?.phase !== 'stopping') {
      await migration.phase('streaming', PATIENCE_MS);
      await migration.signalStop();
    }
    const report = await migration.report();
    await traffic.stop();
    expect(traffic.committed()).toBeGreaterThan(0);
    expect(report.databases[0]).toMatchObject({ status: 'done', method: 'replication', walAfterMarkBytes: 0 });
    await expectEqual(source, target, [database]);
    expect(await leftovers(source, target, [database])).toEqual([]);
  } finally {
    await traffic.stop();
    await migration.close();
  }
}

/** Each unit that is done, and when: a unit that is copied again has another time. */
async function finishedUnits(database: string): Promise<string[]> {
  const units = await target.psql(
    database,
    `SELECT label || ' ' || kind || ' ' || finished FROM pgtransit.unit WHERE state = 'done' ORDER BY 1`,
  );
  return units.split('\n');
}

const copied = (units: string[]): string[] => units.filter((unit) => unit.includes(' copy '));

describe.concurrent('kill -9 of the worker costs nothing', () => {
  test('while it copies: finished tables are not copied again', { timeout: PATIENCE_MS }, async () => {
    const database = 'kill_copy';
    await migrate(database, async (migration) => {
      const hold = await holdAt(target, database, 'copy');
      await hold.reached();
      const before = await eventually(
        () => finishedUnits(database),
        (units) => copied(units).length >= 6,
      );
      await migration.killWorker();
      await hold.release();
      await migration.phase('streaming', PATIENCE_MS);
      expect(await finishedUnits(database)).toEqual(expect.arrayContaining(before));
    });
  });

  test('while it builds an index: the others are not built again', { timeout: PATIENCE_MS }, async () => {
    const database = 'kill_index';
    await migrate(database, async (migration) => {
      const hold = await holdAt(target, database, 'index');
      await hold.reached();
      const before = await eventually(
        () => finishedUnits(database),
        (units) => copied(units).length >= 7,
      );
      await migration.killWorker();
      await hold.release();
      await migration.phase('streaming', PATIENCE_MS);
      expect(await finishedUnits(database)).toEqual(expect.arrayContaining(before));
      expect(await target.psql(database, 'SELECT count(*) FROM pg_index WHERE NOT indisvalid')).toBe('0');
    });
  });

  test('between slot and subscription', { timeout: PATIENCE_MS }, async () => {
    const database = 'kill_view';
    await migrate(database, async (migration) => {
      const hold = await holdAt(target, database, 'view');
      await hold.reached();
      expect((await migration.progress()).databases[0]?.phase).toBe('subscribing');
      await migration.killWorker();
      await hold.release();
    });
  });

  test('while it streams and while it drains', { timeout: PATIENCE_MS }, async () => {
    const database = 'kill_drain';
    await migrate(
      database,
      async (migration) => {
        await migration.phase('streaming', PATIENCE_MS);
        await migration.killWorker();
        const lock = await lockTable(target, database, 'account');
        await lock.reached(); // by the apply worker
        await migration.signalStop();
        await migration.pending(database, 'waitForDrain');
        await migration.killWorker();
        await lock.release();
      },
      { stop: { maxLagBytes: 1e12 } },
    );
  });

  test('a worker that was only asleep does no harm when it wakes up', { timeout: PATIENCE_MS }, async () => {
    const database = 'zombie';
    await migrate(database, async (migration) => {
      const hold = await holdAt(target, database, 'copy');
      await hold.reached();
      process.kill(migration.worker.pid, 'SIGSTOP');
      const second = await startWorkerProcess(migration.env);
      try {
        await hold.release();
        // A query that is handed to the sleeping worker is never answered.
        await eventually(
          () => migration.progress().catch(() => null),
          (progress) => progress?.databases[0]?.phase === 'streaming',
          PATIENCE_MS,
        );
        const before = await finishedUnits(database);
        process.kill(migration.worker.pid, 'SIGCONT');
        await second.kill();
        // Only the first one can answer now, so it is awake; and it has the rest of the migration to itself.
        await eventually(
          () => migration.progress().catch(() => null),
          (progress) => progress !== null,
          60_000,
        );
        expect(await finishedUnits(database)).toEqual(before);
      } finally {
        process.kill(migration.worker.pid, 'SIGCONT');
        await second.kill();
      }
    });
  });
});

describe('kill -9 of the Temporal server costs nothing', () => {
  test('while rows are copied and while changes stream', { timeout: PATIENCE_MS }, async () => {
    const database = 'kill_temporal';
    const dir = mkdtempSync(path.join(workDir(), 'temporal-db-'));
    own({ remove: [dir] });
    const temporal = await startTemporalServer({ dbFile: path.join(dir, 'temporal.db') });
    try {
      await migrate(
        database,
        async (migration) => {
          const hold = await holdAt(target, database, 'copy');
          await hold.reached();
          await temporal.kill();
          await temporal.start();
          await hold.release();
          await migration.phase('streaming', PATIENCE_MS);
          await temporal.kill();
          await temporal.start();
        },
        { temporalAddress: temporal.address },
      );
    } finally {
      await temporal.stop();
    }
  });
});
