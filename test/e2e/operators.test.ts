import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startPostgres, type PostgresServer } from '../../lab/postgres-server.ts';
import { HOLD_SCHEMA, holdAt } from '../support/hold.ts';
import type { LiveMigration } from '../support/live-migration.ts';
import { expectEqual, leftovers, startMigration } from '../support/live-migration.ts';
import { reset, temporal } from '../support/temporal-cli.ts';
import type { Traffic } from '../support/traffic.ts';
import { startTraffic } from '../support/traffic.ts';
import { eventually } from '../support/workflow-harness.ts';

/** What an operator's hands do to a migration with the Temporal CLI, besides what the runbook asks for. */

const PATIENCE_MS = 240_000;

const PAUSED = 4;

let source: PostgresServer;
let target: PostgresServer;

beforeAll(async () => {
  [source, target] = await Promise.all([
    startPostgres({ major: 17, settings: { max_connections: '200' } }),
    startPostgres({ major: 18, settings: { max_connections: '200' } }),
  ]);
});

afterAll(() => Promise.all([source.remove(), target.remove()]));

/** A database under writes, and its place on the target. */
async function prepare(database: string): Promise<Traffic> {
  await source.psql('postgres', `CREATE DATABASE ${database}`);
  await source.psql(database, HOLD_SCHEMA);
  await target.psql('postgres', `CREATE DATABASE ${database}`);
  return startTraffic(source.uri(database), 20);
}

async function finishes(migration: LiveMigration, database: string, traffic: Traffic): Promise<void> {
  await migration.phase('streaming', 90_000);
  await traffic.stop();
  await migration.signalStop();
  expect((await migration.report()).databases[0]).toMatchObject({ status: 'done', generations: 1 });
  await expectEqual(source, target, [database]);
  expect(await leftovers(source, target, [database])).toEqual([]);
}

describe.concurrent('with the Temporal CLI', { timeout: PATIENCE_MS }, () => {
  test('a database that is reset, to anywhere and again, finds what is done, and loses nothing', async () => {
    const database = 'reset';
    const traffic = await prepare(database);
    const hold = await holdAt(target, database, 'copy');
    const migration = await startMigration({ source, target, databases: [database] });
    const child = `${migration.id}/${database}`;
    const handle = migration.client.workflow.getHandle(child);
    try {
      await hold.reached();
      await reset(child, 'openSnapshot');
      await migration.pending(database, 'copyTables');
      await hold.reached();
      await hold.release();
      await migration.phase('streaming', 90_000);
      for (const to of ['createSubscription', 'LastWorkflowTask', 'FirstWorkflowTask']) {
        const runs = async () => (await handle.describe()).runId;
        const before = await runs();
        await reset(child, to);
        await eventually(runs, (run) => run !== before);
        await eventually(
          () => handle.query<{ phase: string }>('progress'),
          ({ phase }) => phase === 'streaming',
          90_000,
        );
      }
      await finishes(migration, database, traffic);
    } finally {
      await hold.release().catch(() => undefined);
      await traffic.stop();
      await migration.close();
    }
  });

  test('a lane that is paused lets go of both servers, and goes on when it is unpaused or reset', async () => {
    const database = 'paused';
    const traffic = await prepare(database);
    const hold = await holdAt(target, database, 'copy');
    const plan = { parallelism: { copy: 1 } };
    const migration = await startMigration({ source, target, databases: [database], plan });
    const child = migration.client.workflow.getHandle(`${migration.id}/${database}`);
    const lane = async () => {
      const { pendingActivities } = (await child.describe()).raw;
      return pendingActivities?.find(({ activityType }) => activityType?.name === 'copyTables');
    };
    const sessions = async (): Promise<number> => {
      const sql = `SELECT count(*) FROM pg_stat_activity WHERE datname = '${database}' AND application_name ~ '^pgtransit.*_copy$'`;
      return Number(await source.psql('postgres', sql)) + Number(await target.psql('postgres', sql));
    };
    try {
      await hold.reached();
      const at = ['--activity-id', (await lane())?.activityId ?? '', '--workflow-id', child.workflowId];

      await temporal('activity', 'pause', ...at);
      const paused = await eventually(lane, (pending) => Number(pending?.state) === PAUSED, 60_000);
      expect(paused?.lastFailure?.message).toBe('Activity paused');
      await eventually(sessions, (count) => count === 0);
      expect((await migration.progress()).attention).toBeNull();
      await temporal('activity', 'unpause', ...at);
      await hold.reached();

      await temporal('activity', 'reset', ...at);
      await eventually(lane, (pending) => pending?.attempt === 1 && Number(pending.state) !== PAUSED, 60_000);
      await hold.release();
      await finishes(migration, database, traffic);
    } finally {
      await hold.release().catch(() => undefined);
      await traffic.stop();
      await migration.close();
    }
  });
});
