import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { Client, Connection } from '@temporalio/client';
import type { WorkflowHandle } from '@temporalio/client';
import { expect, inject } from 'vitest';
import { compareDatabases } from '../../demo/compare.ts';
import type { PostgresAccess } from '../../lab/postgres-access.ts';
import type { WorkerProcess } from '../../lab/worker-process.ts';
import { startWorkerProcess } from '../../lab/worker-process.ts';
import type { ClusterProgress, ClusterReport } from '../../src/domain/progress.ts';
import { eventually } from './workflow-harness.ts';

/** One migration between two servers, on a task queue of its own, by worker processes that a test may kill. */
export interface LiveMigration {
  id: string;
  client: Client;
  env: Record<string, string>;
  handle: WorkflowHandle;
  worker: WorkerProcess;
  /** SIGKILL to the worker, then a new one. */
  killWorker(): Promise<void>;
  progress(): Promise<ClusterProgress>;
  /** Waits until every database is in this phase. */
  phase(phase: string, ms?: number): Promise<ClusterProgress>;
  /** Waits until the database's workflow has this activity pending and started. */
  pending(database: string, activity: string): Promise<void>;
  signalStop(): Promise<void>;
  report(): Promise<ClusterReport>;
  close(): Promise<void>;
}

export interface LiveMigrationOptions {
  source: PostgresAccess;
  target: PostgresAccess;
  databases: string[];
  plan?: object;
  temporalAddress?: string;
  env?: Record<string, string>;
  /** The program of the first worker, if it is of another version; the next one is of this. */
  program?: string;
  /** What is done once a worker is there, before the migration starts. */
  first?: (client: Client, taskQueue: string) => Promise<void>;
}

export async function startMigration(options: LiveMigrationOptions): Promise<LiveMigration> {
  const { source, target, databases, plan = {} } = options;
  const address = options.temporalAddress ?? inject('temporalAddress');
  const id = `live-${randomUUID()}`;
  const env = {
    TEMPORAL_ADDRESS: address,
    PGTRANSIT_TASK_QUEUE: id,
    SOURCE_SERVICE_URI: source.uri('postgres'),
    TARGET_SERVICE_URI: target.uri('postgres'),
    ...options.env,
  };
  let worker = await startWorkerProcess(env, options.program);
  const connection = await Connection.connect({ address });
  const client = new Client({ connection });
  await options.first?.(client, id).catch(async (error: unknown) => {
    await worker.stop();
    throw error;
  });
  const handle = await client.workflow.start('migrateCluster', {
    taskQueue: id,
    workflowId: id,
    args: [{ databases: { include: databases }, ...plan }],
  });
  const progress = (): Promise<ClusterProgress> => handle.query<ClusterProgress>('progress');
  const describe = async (): Promise<string> => (await handle.describe()).status.name;
  return {
    id,
    client,
    env,
    handle,
    get worker() {
      return worker;
    },
    killWorker: async () => {
      await worker.kill();
      worker = await startWorkerProcess(env);
    },
    progress,
    phase: async (phase, ms = 60_000) => {
      const answer = await eventually(
        async () => ((await describe()) === 'RUNNING' ? progress() : handle.result().then(() => progress())),
        (p) => p.databases.length > 0 && p.databases.every((d) => d.phase === phase),
        ms,
      );
      return answer;
    },
    pending: async (database, activity) => {
      const child = client.workflow.getHandle(`${id}/${database}`);
      await eventually(
        async () => {
          const description = await child.describe().catch(() => null);
          return (description?.raw.pendingActivities ?? []).map(
            (pending) => `${pending.activityType?.name ?? ''} ${pending.lastStartedTime ? 'started' : 'scheduled'}`,
          );
        },
        (names) => names.includes(`${activity} started`),
        60_000,
      );
    },
    signalStop: () => handle.signal('stopReplication', { reason: 'test' }),
    report: () => handle.result() as Promise<ClusterReport>,
    close: async () => {
      if ((await describe()) === 'RUNNING') {
        await handle.cancel();
        await handle.result().catch(() => undefined);
      }
      await worker.stop();
      await connection.close();
    },
  };
}

/** Fails with each difference, when one side has something that the other has not. */
export async function expectEqual(source: PostgresAccess, target: PostgresAccess, databases: string[]): Promise<void> {
  for (const database of databases) {
    const { differences, rows } = await compareDatabases(database, source.uri(database), target.uri(database));
    expect(differences).toEqual([]);
    expect(rows).toBeGreaterThan(0);
  }
}

/** Whatever of ours is still on either server: empty after every end of a migration. */
export async function leftovers(
  source: PostgresAccess,
  target: PostgresAccess,
  databases: string[],
): Promise<string[]> {
  // Who looks beside the steps may be at it for a moment longer.
  for (const giveUpAt = Date.now() + 10_000; ; await delay(200)) {
    const found = await lookForLeftovers(source, target, databases);
    if (!found.some((what) => what.endsWith('_probe')) || Date.now() > giveUpAt) return found;
  }
}

async function lookForLeftovers(
  source: PostgresAccess,
  target: PostgresAccess,
  databases: string[],
): Promise<string[]> {
  const found: string[] = [];
  const look = async (server: PostgresAccess, database: string, what: string, sql: string): Promise<void> => {
    const names = (await server.psql(database, sql)).trim();
    if (names !== '') found.push(`${server === source ? 'source' : 'target'} ${database}: ${what} ${names}`);
  };
  for (const server of [source, target]) {
    const existing = (await server.psql('postgres', 'SELECT datname FROM pg_database')).split('\n');
    for (const database of databases.filter((database) => existing.includes(database))) {
      await look(server, database, 'publication', `SELECT pubname FROM pg_publication WHERE pubname LIKE 'pgtransit%'`);
      await look(server, database, 'schema', `SELECT nspname FROM pg_namespace WHERE nspname LIKE 'pgtransit%'`);
      await look(
        server,
        database,
        'subscription',
        `SELECT subname FROM pg_subscription WHERE subname LIKE 'pgtransit%' AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())`,
      );
      const quoted = `'${database.replaceAll("'", "''")}'`;
      await look(
        server,
        'postgres',
        'slot',
        `SELECT slot_name FROM pg_replication_slots WHERE slot_name LIKE 'pgtransit%' AND database = ${quoted}`,
      );
      await look(
        server,
        'postgres',
        'session',
        `SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'pgtransit\\_%\\_%' AND application_name !~ '_control$' AND datname = ${quoted}`,
      );
    }
  }
  return found;
}
