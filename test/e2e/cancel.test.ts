import { CancelledFailure, WorkflowFailedError } from '@temporalio/client';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startPostgres, type PostgresServer } from '../../lab/postgres-server.ts';
import { HOLD_SCHEMA, holdAt, lockTable } from '../support/hold.ts';
import type { LiveMigration } from '../support/live-migration.ts';
import { leftovers, startMigration } from '../support/live-migration.ts';
import { startTraffic } from '../support/traffic.ts';
import { eventually } from '../support/workflow-harness.ts';

const PATIENCE_MS = 120_000;

/** Cancelling waits for a heartbeat of each running step, then undoes; more than this is hanging. */
const BOUND_MS = 45_000;

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

/** Brings a migration to where it is held, cancels it there, and looks at everything it could have left. */
async function cancelled(
  database: string,
  until: (migration: LiveMigration) => Promise<(() => Promise<void>) | undefined>,
  plan: object = {},
  more = '',
): Promise<void> {
  await source.psql('postgres', `CREATE DATABASE ${database}`);
  await source.psql(database, HOLD_SCHEMA + more);
  await target.psql('postgres', `CREATE DATABASE ${database}`);
  const traffic = startTraffic(source.uri(database), 20);
  const migration = await startMigration({ source, target, databases: [database], plan });
  let release: (() => Promise<void>) | undefined;
  try {
    release = await until(migration);
    const asked = Date.now();
    await migration.handle.cancel();
    const end: unknown = await migration.handle.result().catch((error: unknown) => error);
    expect(Date.now() - asked).toBeLessThan(BOUND_MS);
    expect(end).toBeInstanceOf(WorkflowFailedError);
    expect((end as WorkflowFailedError).cause).toBeInstanceOf(CancelledFailure);
    expect((await migration.handle.describe()).status.name).toBe('CANCELLED');
    // What is being held stays held: nothing of ours may wait for it any more.
    await eventually(
      () => sessions(database),
      (left) => left === '',
      5_000,
    );
    expect(await leftovers(source, target, [database])).toEqual([]);
    await source.psql(database, `INSERT INTO public.account SELECT max(id) + 1, 0 FROM public.account`);
    await source.psql(database, 'DROP TABLE public.held, public.indexed CASCADE; ALTER TABLE public.other ADD x int');
  } finally {
    await release?.();
    await traffic.stop();
    await migration.close();
  }
}

/** Of ours, on both sides, those for control too. */
async function sessions(database: string): Promise<string> {
  const sql = `SELECT application_name, backend_type, query FROM pg_stat_activity WHERE application_name LIKE 'pgtransit%' AND datname = '${database}'`;
  const [left, right] = await Promise.all([source.psql('postgres', sql), target.psql('postgres', sql)]);
  return `${left}${right}`;
}

describe.concurrent('cancelling leaves nothing behind, and the source can be written,', () => {
  test('as soon as it was started', { timeout: PATIENCE_MS }, async () => {
    await cancelled('cancel_start', () => Promise.resolve(undefined));
  });

  test.each(['copy', 'index', 'view'] as const)('while it is held at %s', { timeout: PATIENCE_MS }, async (place) => {
    const database = `cancel_${place}`;
    await cancelled(database, async () => {
      const hold = await holdAt(target, database, place);
      await hold.reached();
      return () => hold.release();
    });
  });

  test('while it streams', { timeout: PATIENCE_MS }, async () => {
    await cancelled('cancel_streaming', async (migration) => {
      await migration.phase('streaming');
      return undefined;
    });
  });

  test('while it drains behind a fence', { timeout: PATIENCE_MS }, async () => {
    const database = 'cancel_drain';
    await cancelled(
      database,
      async (migration) => {
        await migration.phase('streaming');
        const lock = await lockTable(target, database, 'account');
        await lock.reached();
        await migration.signalStop();
        await migration.pending(database, 'waitForDrain');
        return () => lock.release();
      },
      { stop: { maxLagBytes: 1e12, fence: 'read-only' } },
    );
  });

  test('while it is parked', { timeout: PATIENCE_MS }, async () => {
    const onTarget = `CREATE FUNCTION public.fail_on_target() RETURNS int LANGUAGE plpgsql AS $$ BEGIN
      IF current_setting('port') = '${target.port}' THEN RAISE 'not on this server'; END IF; RETURN 1; END $$;
      CREATE MATERIALIZED VIEW failing AS SELECT public.fail_on_target() AS one;`;
    await cancelled(
      'cancel_parked',
      async (migration) => {
        const { attention } = await eventually(
          () => migration.progress(),
          (progress) => progress.attention !== null,
          60_000,
        );
        expect(attention).toContain('not on this server');
        expect(attention).toContain('failing');
        return undefined;
      },
      {},
      onTarget,
    );
  });
});

describe('cancelling leaves nothing behind', () => {
  test('while the slot waits for an older transaction', { timeout: PATIENCE_MS }, async () => {
    const database = 'cancel_slot';
    const client = new pg.Client({ connectionString: source.uri() });
    await client.connect();
    await client.query('BEGIN; SELECT pg_current_xact_id()');
    await cancelled(database, async () => {
      await eventually(
        () => source.psql('postgres', `SELECT count(*) FROM pg_replication_slots WHERE database = '${database}'`),
        (slots) => slots === '1',
        60_000,
      );
      return () => client.end();
    });
  });
});
