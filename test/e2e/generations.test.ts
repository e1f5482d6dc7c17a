import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startPostgres, type PostgresServer } from '../../lab/postgres-server.ts';
import { HOLD_SCHEMA, holdAt } from '../support/hold.ts';
import type { LiveMigration } from '../support/live-migration.ts';
import { expectEqual, leftovers, startMigration } from '../support/live-migration.ts';
import type { Traffic } from '../support/traffic.ts';
import { startTraffic } from '../support/traffic.ts';
import { eventually } from '../support/workflow-harness.ts';

const PATIENCE_MS = 240_000;

let source: PostgresServer;
let target: PostgresServer;

beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres({ major: 17 }), startPostgres({ major: 18 })]);
});

afterAll(() => Promise.all([source.remove(), target.remove()]));

interface Story {
  database: string;
  migration: LiveMigration;
  /** Waits until `held` is being copied, and nothing else is unfinished. */
  untilHeld: () => Promise<void>;
  traffic: Traffic;
}

/** Rows of a table that is not finished may refer to rows of a finished one that only its stream will bring. */
const REFERENCE = `${HOLD_SCHEMA} ALTER TABLE held ADD COLUMN other int REFERENCES other;`;

/** Writers write all the time; `story` happens while the copy is held at one table. Then the hold is released. */
async function migrate(
  database: string,
  story: (it: Story) => Promise<void>,
  generations: number,
  limits: object = {},
): Promise<void> {
  await source.psql('postgres', `CREATE DATABASE ${database}`);
  await source.psql(database, REFERENCE);
  await target.psql('postgres', `CREATE DATABASE ${database}`);
  const hold = await holdAt(target, database, 'copy');
  const traffic = startTraffic(source.uri(database), 100);
  const plan = { method: 'replication', stop: { fence: 'read-only' }, snapshot: limits };
  const migration = await startMigration({ source, target, databases: [database], plan });
  /** Which tables are finished, with the moment at which they were. */
  const finished = async (): Promise<string[]> => {
    const sql = `SELECT label || ' ' || finished FROM pgtransit.unit WHERE kind = 'copy' AND state = 'done' ORDER BY 1`;
    return (await target.psql(database, sql)).split('\n');
  };
  const untilHeld = async (): Promise<void> => {
    await hold.reached();
    const todo = `SELECT count(*) FROM pgtransit.unit WHERE kind = 'copy' AND state = 'todo'`;
    await eventually(
      () => target.psql(database, todo),
      (count) => count === '1',
    );
  };
  try {
    await untilHeld();
    const before = await finished();
    await source.psql(database, `INSERT INTO other VALUES (9001, 'new'); INSERT INTO held VALUES (9001, 'new', 9001)`);
    await story({ database, migration, untilHeld, traffic });
    await hold.release();
    const progress = await migration.phase('streaming', PATIENCE_MS);
    expect(progress.databases[0]).toMatchObject({ generations });
    expect(await finished()).toEqual(expect.arrayContaining(before));
    expect(await target.psql(database, 'SELECT count(*) FROM pg_constraint WHERE NOT convalidated')).toBe('0');
    await migration.signalStop();
    const report = await migration.report();
    await traffic.stop();
    expect(report.databases[0]).toMatchObject({ status: 'done', generations, walAfterMarkBytes: 0 });
    expect(report.databases[0]?.warnings).toContainEqual(expect.stringContaining('The snapshot was lost'));
    await expectEqual(source, target, [database]);
    expect(await foreignKeys(target, database)).toEqual(await foreignKeys(source, database));
    expect(await leftovers(source, target, [database])).toEqual([]);
  } finally {
    await hold.release().catch(() => undefined);
    await traffic.stop();
    await migration.close();
  }
}

const foreignKeys = (server: PostgresServer, database: string): Promise<string> =>
  server.psql(
    database,
    `SELECT conrelid::regclass, conname, convalidated FROM pg_constraint WHERE contype = 'f' ORDER BY 1, 2`,
  );

const endHolder = (database: string): Promise<string> =>
  source.psql(
    'postgres',
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${database}' AND application_name LIKE '%_holder'`,
  );

const generation = (database: string): Promise<string> =>
  target.psql(database, 'SELECT max(number) FROM pgtransit.generation');

const untilGeneration = (database: string, number: number): Promise<string> =>
  eventually(
    () => generation(database),
    (found) => found === String(number),
    60_000,
  );

describe.concurrent('a lost snapshot costs the tables that were not finished, and nothing else', () => {
  test('when its holder is ended, twice', { timeout: PATIENCE_MS }, async () => {
    await migrate(
      'holder_lost',
      async ({ database, untilHeld, traffic }) => {
        for (const next of [1, 2]) {
          const committed = traffic.committed();
          await endHolder(database);
          await untilGeneration(database, next);
          await untilHeld();
          await eventually(
            () => Promise.resolve(traffic.committed()),
            (now) => now > committed + 20,
          );
        }
      },
      3,
    );
  });

  test('when it has held back vacuum for as long as the plan allows', { timeout: PATIENCE_MS }, async () => {
    await migrate(
      'too_old',
      async ({ database, untilHeld }) => {
        await source.psql(
          'postgres',
          'DO $$ BEGIN FOR i IN 1..30000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$',
        );
        await untilGeneration(database, 1);
        await untilHeld();
      },
      2,
      { maxXidAge: 25_000 },
    );
  });

  test('when a table is rewritten before its rows are in', { timeout: PATIENCE_MS }, async () => {
    await migrate(
      'rewritten',
      async ({ database, migration, untilHeld }) => {
        // The lane that copies it is ended: the next attempt finds that the snapshot cannot read it any more.
        await migration.worker.kill();
        await source.psql(database, 'ALTER TABLE held ALTER COLUMN filler TYPE varchar; VACUUM FULL held');
        await migration.killWorker();
        await untilGeneration(database, 1);
        await untilHeld();
      },
      2,
    );
  });
});

test('a lost snapshot ends a dump, which must be of one moment', { timeout: PATIENCE_MS }, async () => {
  const database = 'dump_lost';
  await source.psql('postgres', `CREATE DATABASE ${database}`);
  await source.psql(database, HOLD_SCHEMA);
  await target.psql('postgres', `CREATE DATABASE ${database}`);
  const hold = await holdAt(target, database, 'copy');
  const migration = await startMigration({ source, target, databases: [database], plan: { method: 'dump' } });
  try {
    await hold.reached();
    await endHolder(database);
    await expect(migration.report()).rejects.toThrow();
    expect((await migration.progress()).databases[0]).toMatchObject({ phase: 'failed', generations: 1 });
    expect(await leftovers(source, target, [database])).toEqual([]);
  } finally {
    await hold.release();
    await migration.close();
  }
});

test('a source that is restarted in the middle of the copy is gone on from', { timeout: PATIENCE_MS }, async () => {
  const own = await startPostgres({ major: 15 });
  const database = 'restarted';
  try {
    await own.psql('postgres', `CREATE DATABASE ${database}`);
    await own.psql(database, HOLD_SCHEMA);
    await target.psql('postgres', `CREATE DATABASE ${database}`);
    const hold = await holdAt(target, database, 'copy');
    const migration = await startMigration({ source: own, target, databases: [database] });
    try {
      await hold.reached();
      await own.restart();
      await untilGeneration(database, 1);
      const traffic = startTraffic(own.uri(database), 50);
      await hold.release();
      await migration.phase('streaming', PATIENCE_MS);
      await traffic.stop();
      await migration.signalStop();
      const report = await migration.report();
      expect(report.databases[0]).toMatchObject({ status: 'done', generations: 2, walAfterMarkBytes: 0 });
      await expectEqual(own, target, [database]);
      expect(await leftovers(own, target, [database])).toEqual([]);
    } finally {
      await hold.release().catch(() => undefined);
      await migration.close();
    }
  } finally {
    await own.remove();
  }
});
