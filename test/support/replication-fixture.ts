import { randomBytes } from 'node:crypto';
import { MockActivityEnvironment } from '@temporalio/testing';
import pg from 'pg';
import type { ActivityDeps } from '../../activities/context.ts';
import { readIdentity } from '../../src/postgres/identity.ts';
import { createCarryOverActivities } from '../../activities/carry-over.ts';
import { createCopyActivities } from '../../activities/copy.ts';
import { createGenerationActivities } from '../../activities/generations.ts';
import { createFenceActivities } from '../../activities/fence.ts';
import { createLargeObjectActivities } from '../../activities/large-objects.ts';
import { createReplicationActivities } from '../../activities/replication.ts';
import { createReverseActivities } from '../../activities/reverse.ts';
import { createSequenceActivities } from '../../activities/sequences.ts';
import type { SnapshotTimes } from '../../activities/snapshot.ts';
import { createSnapshotActivities } from '../../activities/snapshot.ts';
import { createFencedVerifyActivities } from '../../activities/verify-fenced.ts';
import type { PartSizes } from '../../activities/verify-streaming.ts';
import { createStreamingVerifyActivities } from '../../activities/verify-streaming.ts';
import { createUndoActivities } from '../../activities/undo.ts';
import type { Migration } from '../../src/domain/migration.ts';
import { parsePlan } from '../../src/domain/plan.ts';
import type { Session } from '../../src/postgres/connection.ts';
import { connect } from '../../src/postgres/connection.ts';
import type { CopySizes } from '../../src/postgres/copy-plan.ts';
import { parseConnInfo } from '../../src/postgres/conninfo.ts';
import { createLedger } from '../../src/postgres/ledger.ts';
import type { PostgresAccess } from '../../lab/postgres-access.ts';
import { runActivity } from './copy-fixture.ts';
import { createDatabase, dropDatabase, useServer } from './servers.ts';

export interface ReplicationOptions {
  source?: number | PostgresAccess;
  target?: number | PostgresAccess;
  /** Run on both sides: what pre-data would be. */
  schema?: string;
  /** Run on the source only, before the snapshot. */
  rows?: string;
  method?: Migration['method'];
  plan?: object;
  times?: Partial<SnapshotTimes>;
  sizes?: CopySizes;
  /** What is compared at once while it streams. */
  parts?: PartSizes;
  /** How the activities log in on the source. */
  sourceUri?: (database: string) => string;
  /** The admin console that the plan's `stop.pgbouncer` refers to. */
  pgbouncer?: string;
}

/** An empty migration between two servers, with an id of its own: slots and subscriptions are names of a whole server. */
export async function replicationFixture(options: ReplicationOptions) {
  const access = (side: number | PostgresAccess) =>
    typeof side === 'number' ? useServer(side) : Promise.resolve(side);
  const [from, to] = await Promise.all([access(options.source ?? 17), access(options.target ?? 18)]);
  const { name } = await createDatabase(from.uri());
  await createDatabase(to.uri(), name);
  const info = (uri: string) => parseConnInfo(uri, 'the test');
  const admin = { source: info(from.uri(name)), target: info(to.uri(name)) };
  const endpoints = {
    source: { server: 'source' as const, info: info(options.sourceUri?.(name) ?? from.uri(name)) },
    target: { server: 'target' as const, info: admin.target },
  };
  const sessions: Session[] = [];
  const open = async (server: 'source' | 'target', applicationName = 'test'): Promise<Session> => {
    const session = await connect({ server, info: admin[server] }, { applicationName });
    sessions.push(session);
    return session;
  };
  const [source, target] = [await open('source'), await open('target')];
  const [left, right] = [await readIdentity(source), await readIdentity(target)];
  const m: Migration = {
    id: randomBytes(6).toString('hex'),
    workflowId: 'test',
    database: name,
    sourceOid: left.databaseOid,
    method: options.method ?? 'replication',
    plan: parsePlan(options.plan ?? {}),
    servers: { source: left, target: right },
  };
  for (const session of [source, target]) if (options.schema !== undefined) await session.query(options.schema);
  if (options.rows !== undefined) await source.query(options.rows);
  // Else these sessions tell the counters of what they wrote at some moment later, when it looks like another write.
  for (const session of [source, target])
    if (session.version >= 150000) await session.query('SELECT pg_stat_force_next_flush()');
  await target.transaction(() => createLedger(target, m, true));
  const deps: ActivityDeps = {
    endpoint: (reference, server) =>
      reference === m.plan.stop.pgbouncer ? { server, info: info(options.pgbouncer ?? '') } : endpoints[server],
    searchAttributes: false,
  };
  const steps = {
    ...createSnapshotActivities(deps, options.times),
    ...createCopyActivities(deps, options.sizes),
    ...createGenerationActivities(deps),
    ...createSequenceActivities(deps),
    ...createCarryOverActivities(deps),
    ...createLargeObjectActivities(deps),
    ...createReplicationActivities(deps),
    ...createFenceActivities(deps),
    ...createReverseActivities(deps),
    ...createFencedVerifyActivities(deps),
    ...createStreamingVerifyActivities(deps, options.parts),
    ...createUndoActivities(deps),
  };
  /** Copies all rows under the snapshot, seals, subscribes and waits until the target has caught up. */
  const stream = async (): Promise<void> => {
    await runActivity(steps.openSnapshot, [m, 0]);
    await copy();
    await runActivity(steps.createSubscription, [m]);
    await runActivity(steps.waitForCatchUp, [m]);
  };
  const copy = async (): Promise<void> => {
    await runActivity(steps.planCopy, [m, 0]);
    await runActivity(steps.copyTables, [m, 0, 0]);
    await runActivity(steps.sealCopy, [m, 0]);
    await runActivity(steps.keepSnapshot, [m, 0]);
  };
  /** Slots, publications and sessions on the source; subscriptions, schema and sessions on the target. */
  const leftovers = async (): Promise<string[]> => {
    const like = `pgtransit_${m.id}_%`;
    const names = (rows: { name: string }[]) => rows.map((row) => row.name);
    const working = `SELECT 'session ' || application_name AS name FROM pg_stat_activity WHERE application_name LIKE $1 AND application_name !~ '_control$'`;
    return [
      ...names(
        await source.query(
          `SELECT 'slot ' || slot_name AS name FROM pg_replication_slots WHERE slot_name LIKE $1
           UNION ALL SELECT 'publication ' || pubname FROM pg_publication WHERE pubname LIKE $1 UNION ALL ${working}`,
          [like],
        ),
      ),
      ...names(
        await target.query(
          `SELECT 'subscription ' || subname AS name FROM pg_subscription WHERE subname LIKE $1
           UNION ALL SELECT 'schema' WHERE to_regnamespace('pgtransit') IS NOT NULL UNION ALL ${working}`,
          [like],
        ),
      ),
    ];
  };
  const close = async (): Promise<void> => {
    await runActivity(steps.undo, [m]);
    await Promise.all(sessions.map((session) => session.close()));
    await Promise.all([dropDatabase(from.uri(), name), dropDatabase(to.uri(), name)]);
  };
  return { m, deps, endpoints, from, to, source, target, open, steps, stream, copy, leftovers, close };
}

export type ReplicationFixture = Awaited<ReturnType<typeof replicationFixture>>;

/** Runs `sql` again and again until stopped; says how often, and the error that ended it. */
export function startWriter(uri: string, sql: string, perSecond: number) {
  let stopping = false;
  let written = 0;
  const running = (async () => {
    const client = new pg.Client({ connectionString: uri });
    client.on('error', () => undefined);
    await client.connect();
    while (!stopping) {
      const due = performance.now() + 1000 / perSecond;
      await client.query(sql);
      written += 1;
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, due - performance.now())));
    }
    await client.end();
  })();
  return {
    written: () => written,
    /** Settles when it has stopped, by itself with the error that ended it. */
    stopped: running,
    stop: async (): Promise<void> => {
      stopping = true;
      await running;
    },
  };
}

/** An activity that goes on until it is cancelled. */
export function runInBackground<Args extends unknown[]>(
  activity: (...args: Args) => Promise<unknown>,
  args: Args,
): { ended: Promise<unknown>; cancel(): void } {
  const environment = new MockActivityEnvironment();
  const ended = runActivity(activity, args, environment).catch((error: unknown) => error);
  return { ended, cancel: () => environment.cancel() };
}
