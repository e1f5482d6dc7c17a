import { randomUUID } from 'node:crypto';
import { Client, Connection, WorkflowFailedError } from '@temporalio/client';
import type { WorkflowHandle } from '@temporalio/client';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import { freePort } from '../../src/temporal/free-port.ts';
import { startPostgres, type PostgresServer } from '../../lab/postgres-server.ts';
import { readFailure } from '../../src/domain/application-failure.ts';
import { HOLD_SCHEMA, holdAt } from '../support/hold.ts';
import type { WorkerProcess } from '../../lab/worker-process.ts';
import { startWorkerProcess } from '../../lab/worker-process.ts';
import type { LiveMigration } from '../support/live-migration.ts';
import { expectEqual, leftovers, startMigration } from '../support/live-migration.ts';
import { TRAFFIC_SCHEMA } from '../support/traffic.ts';
import { eventually } from '../support/workflow-harness.ts';

const PATIENCE_MS = 180_000;

let source: PostgresServer;
let target: PostgresServer;
/** Has a database of each name too, so that only its identity tells it from the source. */
let impostor: PostgresServer;

beforeAll(async () => {
  [source, target, impostor] = await Promise.all([
    startPostgres({ major: 17, auth: 'scram-sha-256' }),
    startPostgres({ major: 18, auth: 'scram-sha-256' }),
    startPostgres({ major: 17, auth: 'scram-sha-256' }),
  ]);
});

afterAll(() => Promise.all([source.remove(), target.remove(), impostor.remove()]));

async function prepare(database: string, schema = TRAFFIC_SCHEMA): Promise<void> {
  await source.psql('postgres', `CREATE DATABASE ${database}`);
  await source.psql(database, schema);
}

async function failureOf(handle: WorkflowHandle): Promise<ReturnType<typeof readFailure>> {
  const error: unknown = await handle.result().catch((error: unknown) => error);
  expect(error).toBeInstanceOf(WorkflowFailedError);
  return readFailure((error as WorkflowFailedError).cause);
}

const again = (migration: LiveMigration, database: string): Promise<WorkflowHandle> =>
  migration.client.workflow.start('migrateCluster', {
    taskQueue: migration.id,
    workflowId: `${migration.id}-again-${randomUUID()}`,
    args: [{ databases: { include: [database] } }],
  });

describe.concurrent('messages', () => {
  test(
    'a stop that is asked for before anything has begun is honoured, and twice is as good as once',
    { timeout: PATIENCE_MS },
    async () => {
      const database = 'early';
      await prepare(database);
      const migration = await startMigration({ source, target, databases: [database] });
      try {
        await migration.signalStop();
        await migration.signalStop();
        const report = await migration.report();
        expect(report.databases[0]).toMatchObject({ status: 'done', method: 'replication' });
        await expectEqual(source, target, [database]);
        expect(await leftovers(source, target, [database])).toEqual([]);
      } finally {
        await migration.close();
      }
    },
  );

  test(
    'a second migration of the same database is refused, while the first runs and after it has ended',
    { timeout: PATIENCE_MS },
    async () => {
      const database = 'twice';
      await prepare(database);
      const migration = await startMigration({ source, target, databases: [database] });
      try {
        await migration.phase('streaming');
        const during = await failureOf(await again(migration, database));
        expect(during.type).toBe('ValidationFailed');
        expect(during.message).toContain(`belongs to another migration, workflow "${migration.id}/${database}"`);
        await expect(
          migration.client.workflow.start('migrateCluster', { taskQueue: migration.id, workflowId: migration.id }),
        ).rejects.toThrow(/already started/);

        const refused = migration.handle.executeUpdate('stopReplication', { args: [{ databases: ['nowhere'] }] });
        await expect(refused).rejects.toMatchObject({
          cause: { message: 'This migration has no database "nowhere".' },
        });
        const phases = await migration.handle.executeUpdate('stopReplication', { args: [{ reason: 'update' }] });
        expect(phases).toEqual({ [database]: 'streaming' });
        expect((await migration.report()).databases[0]?.status).toBe('done');
        await expectEqual(source, target, [database]);

        const after = await failureOf(await again(migration, database));
        expect(after).toMatchObject({ type: 'ValidationFailed' });
        expect(after.message).toContain('[target-not-empty]');
        await expectEqual(source, target, [database]);
        expect(await leftovers(source, target, [database])).toEqual([]);
      } finally {
        await migration.close();
      }
    },
  );

  test(
    'a worker whose reference leads to another server parks the migration, and a right one goes on after resolve',
    { timeout: PATIENCE_MS },
    async () => {
      const database = 'impostor';
      await prepare(database, HOLD_SCHEMA);
      for (const server of [target, impostor]) await server.psql('postgres', `CREATE DATABASE ${database}`);
      const hold = await holdAt(target, database, 'copy');
      const migration = await startMigration({ source, target, databases: [database] });
      const others: WorkerProcess[] = [];
      try {
        await hold.reached();
        await migration.worker.kill();
        others.push(await startWorkerProcess({ ...migration.env, SOURCE_SERVICE_URI: impostor.uri() }));
        const { attention } = await eventually(
          () => migration.progress(),
          (progress) => progress.attention?.includes('resolve with retry') === true,
          100_000,
        );
        expect(attention).toContain('The source that this worker reaches is another server');
        await others[0]?.kill();
        others.push(await startWorkerProcess(migration.env));
        await hold.release();
        await migration.handle.executeUpdate('resolve', { args: [{ action: 'retry' }] });
        await migration.phase('streaming', PATIENCE_MS);
        await migration.signalStop();
        expect((await migration.report()).databases[0]?.status).toBe('done');
        await expectEqual(source, target, [database]);
        expect(await leftovers(source, target, [database])).toEqual([]);
      } finally {
        await Promise.all(others.map((worker) => worker.kill()));
        await migration.killWorker();
        await migration.close();
      }
    },
  );
});

describe('what cannot work fails with one clear sentence, soon, and changes nothing:', () => {
  const database = 'input';
  let client: Client;
  let worker: WorkerProcess;
  let taskQueue: string;

  beforeAll(async () => {
    await prepare(database, `${TRAFFIC_SCHEMA}; CREATE TABLE secret (id int PRIMARY KEY)`);
    await source.psql(
      database,
      `CREATE ROLE weak LOGIN REPLICATION PASSWORD 'weak'; GRANT SELECT ON account, log, keyless, "Order.s", "Order.s 1", "Order.s 2", total TO weak`,
    );
    await target.psql('postgres', `CREATE ROLE weak LOGIN PASSWORD 'weak'`);
    taskQueue = `input-${randomUUID()}`;
    const address = inject('temporalAddress');
    worker = await startWorkerProcess({
      TEMPORAL_ADDRESS: address,
      PGTRANSIT_TASK_QUEUE: taskQueue,
      SOURCE_SERVICE_URI: source.uri(),
      TARGET_SERVICE_URI: target.uri(),
      WRONG_PASSWORD: source.uri('postgres', { user: 'postgres', password: 'hush-hush' }),
      NOBODY_THERE: `postgresql://postgres@127.0.0.1:${await freePort()}/postgres`,
      NO_SUCH_HOST: 'postgresql://postgres@no-such-host.invalid/postgres',
      SOURCE_AGAIN: source.uri().replace('127.0.0.1', 'localhost'),
      WEAK_ON_SOURCE: source.uri('postgres', { user: 'weak', password: 'weak' }),
      WEAK_ON_TARGET: target.uri('postgres', { user: 'weak', password: 'weak' }),
    });
    client = new Client({ connection: await Connection.connect({ address }) });
  });

  afterAll(async () => {
    await worker.stop();
    await client.connection.close();
  });

  const everything = async (): Promise<string> => {
    const sql = `SELECT json_build_array(
      (SELECT json_agg(datname ORDER BY 1) FROM pg_database), (SELECT json_agg(rolname ORDER BY 1) FROM pg_roles),
      (SELECT json_agg(slot_name) FROM pg_replication_slots), (SELECT json_agg(pubname) FROM pg_publication),
      (SELECT json_agg(subname) FROM pg_subscription), (SELECT json_agg(setconfig) FROM pg_db_role_setting))`;
    return `${await source.psql(database, sql)}${await target.psql('postgres', sql)}`;
  };

  test.concurrent.each<[string, object, RegExp]>([
    ['a wrong password', { source: 'env:WRONG_PASSWORD' }, /password authentication failed for user "postgres"/],
    [
      'nobody listening',
      { source: 'env:NOBODY_THERE' },
      /127\.0\.0\.1:\d+ as "postgres" on the source: connect ECONNREFUSED/,
    ],
    ['an unknown host', { target: 'env:NO_SUCH_HOST' }, /on the target:.*no-such-host\.invalid/],
    ['an unknown reference', { source: 'env:NOT_SET_ANYWHERE' }, /NOT_SET_ANYWHERE/],
    ['an unknown database', { databases: { include: [database, 'nowhere'] } }, /nowhere/],
    ['the source as target', { target: 'env:SOURCE_AGAIN' }, /\[same-server\]/],
    ['a table that may not be read', { source: 'env:WEAK_ON_SOURCE' }, /\[table-select\] source input: public\.secret/],
    ['a target that may not create databases', { target: 'env:WEAK_ON_TARGET' }, /\[create-database\] target/],
  ])('%s', async (_what, plan, sentence) => {
    const before = await everything();
    const began = Date.now();
    const handle = await client.workflow.start('migrateCluster', {
      taskQueue,
      workflowId: `${taskQueue}-${randomUUID()}`,
      args: [{ databases: { include: [database] }, ...plan }],
    });
    const { type, message } = await failureOf(handle);
    expect(Date.now() - began).toBeLessThan(40_000);
    expect(['ValidationFailed', 'InvalidPlan']).toContain(type);
    expect(message).toMatch(sentence);
    expect(message).not.toMatch(/undefined|\[object|hush-hush|Activity task failed/);
    expect(await everything()).toBe(before);
  });
});
