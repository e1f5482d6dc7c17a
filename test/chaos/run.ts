import { setTimeout as delay } from 'node:timers/promises';
import type { WorkflowHandle } from '@temporalio/client';
import type { ClusterProgress, ClusterReport, DatabaseProgress } from '../../src/domain/progress.ts';
import type { Bank } from './bank.ts';
import { openBank } from './bank.ts';
import { judge } from './judge.ts';
import type { RunPlan } from './plan.ts';
import { startStorm, type Happened } from './scene.ts';
import type { After } from './steps.ts';
import { STREAMING } from './steps.ts';
import { TEMPLATE, until, type World } from './world.ts';

/** How a migration came to its end. */
export interface Ending {
  how: 'done' | 'failed' | 'cancelled' | 'hung';
  report: ClusterReport | null;
  /** What it said at its end. */
  message: string;
  /** What its database said of itself then; empty: there was none yet, or nobody answered. */
  said: string;
  /** What it said each time that it was parked; all but the last were answered with `retry`. */
  parked: string[];
}

export interface RunResult {
  plan: RunPlan;
  events: readonly Happened[];
  ending: Ending;
  seconds: number;
  /** The failpoints of what changed something, in their order. */
  effects: string[];
  /** What must not be; empty: the run is as it should be. */
  problems: string[];
}

/** A run takes 10 to 40 s. What is not over by now waits for something that will not come. */
const PATIENCE_MS = 240_000;
/** … and each event takes a while until it is noticed. */
const PATIENCE_PER_EVENT_MS = 30_000;
/** Without a worker nobody answers a query; then it is asked again. */
const ANSWER_MS = 3_000;
/** An operator who has mended the cause answers with `retry` this often. */
const MOST_RETRIES = 3;
/** Transfers on the target, before it is gone back. */
const WRITTEN_BACK = 10;
/** Messages that are lost with a worker or a server are sent again. */
const REPEAT_MS = 5_000;

/** `big` is of 5 MB. */
const RANGE_BYTES = 500_000;

/** One migration under the events of its plan, from a new database to nothing left of it. */
export async function perform(
  world: World,
  plan: RunPlan,
  onProblem: (result: RunResult, handle: WorkflowHandle) => Promise<void>,
): Promise<RunResult> {
  const database = `chaos_${plan.seed}`;
  const { source, client, failpoints, workers } = world;
  const began = Date.now();
  failpoints.reset();
  workers.forgetOutput();
  await source.server.psql('postgres', `CREATE DATABASE ${database} TEMPLATE ${TEMPLATE}`);
  if (plan.ranged) await source.server.psql(database, 'ALTER TABLE big REPLICA IDENTITY FULL');
  // What is written after the snapshot of a dump is not in it.
  const bank = openBank(source.server, database, plan.method === 'replication' ? 2 : 0, 40);
  const workflowId = `chaos-${plan.seed}-${began}`;
  const handle = client.workflow.getHandle(workflowId);
  const storm = startStorm(world, plan, database, async () => {
    await until(() => asked(handle.cancel()), PATIENCE_MS);
  });
  const input = {
    databases: { include: [database] },
    method: plan.method,
    verify: plan.verify,
    // What strikes may well take longer than a minute, and that the cutover is then put back needs a person.
    stop: { fence: 'read-only', deadlineSeconds: 3600 },
    parallelism: { copy: 2, index: 2 },
    ...(plan.after !== null && { reverse: {} }),
    ...(plan.ranged && { snapshot: { rangeBytes: RANGE_BYTES } }),
  };
  const options = { taskQueue: world.taskQueue, workflowId, args: [input] };
  let keeping = true;
  const keeper = (async () => {
    for (; keeping; await delay(50)) await workers.ensure();
  })();
  try {
    await client.workflow.start('migrateCluster', options);
    const ending = await follow(world, handle, database, storm, () => goOn(world, handle, plan.after, bank));
    await storm.end();
    await quiet(world, storm.events);
    const problems = await judge(world, { plan, database, ending, events: storm.events, bank });
    const seconds = (Date.now() - began) / 1000;
    const effects = failpoints
      .passed()
      .filter(({ effect, workflow }) => effect && workflow.startsWith(workflowId))
      .map(({ name }) => name);
    const result = { plan, events: storm.events, ending, seconds, effects, problems };
    if (problems.length > 0) await onProblem(result, handle);
    return result;
  } finally {
    keeping = false;
    await storm.end();
    await keeper;
    await clearAway(world, database, handle);
    await bank.stop();
    await dropDatabases(world, database);
  }
}

async function follow(
  world: World,
  handle: WorkflowHandle,
  name: string,
  storm: ReturnType<typeof startStorm>,
  goOn: () => Promise<boolean>,
): Promise<Ending> {
  const parked: string[] = [];
  let told = 0;
  const patienceMs = PATIENCE_MS + storm.events.length * PATIENCE_PER_EVENT_MS;
  for (const giveUpAt = Date.now() + patienceMs; Date.now() < giveUpAt; await delay(100)) {
    const status = await answer(world, () => handle.describe().then(({ status: { name } }) => name));
    if (status !== null && status !== 'RUNNING') return ended(world, handle, name, parked);
    const progress = await answer(world, () => handle.query<ClusterProgress>('progress'));
    const database = progress?.databases[0];
    if (database === undefined) continue;
    storm.phase(database.phase);
    const mayTell = Date.now() - told > REPEAT_MS;
    if (database.answers.length > 0) {
      if (storm.lasts() || !mayTell) continue;
      parked.push(database.attention ?? '');
      told = Date.now();
      await reply(world, handle, database, parked.length);
    } else if (database.phase === STREAMING && storm.isCalm() && mayTell) {
      if (await answer(world, () => handle.signal('stopReplication', { reason: 'chaos' }).then(() => true)))
        told = Date.now();
    } else if (database.phase === 'reversing' && !storm.lasts() && mayTell) {
      if (await goOn()) told = Date.now();
    }
  }
  return { how: 'hung', report: null, message: '', said: '', parked };
}

/** The target serves: leads the writers there, and once they have written asks for what the plan has. Answers whether. */
async function goOn(world: World, handle: WorkflowHandle, after: After, bank: Bank): Promise<boolean> {
  if (after === null) return false;
  const before = bank.committed();
  bank.lead(world.target.server);
  if (!(await until(() => bank.committed() > before + WRITTEN_BACK, ANSWER_MS))) return false;
  // What is written to the target once the source is let go is on no other server.
  if (after === 'complete') bank.lead(null);
  return (await answer(world, () => handle.executeUpdate(after).then(() => true))) ?? false;
}

/** As an operator would; who has tried in vain gives up. */
async function reply(
  world: World,
  handle: WorkflowHandle,
  { answers }: DatabaseProgress,
  times: number,
): Promise<void> {
  if (times > MOST_RETRIES || !answers.includes('retry')) await answer(world, () => handle.cancel());
  else await answer(world, () => handle.executeUpdate('resolve', { args: [{ action: 'retry' }] }));
}

async function ended(world: World, handle: WorkflowHandle, database: string, parked: string[]): Promise<Ending> {
  const child = world.client.workflow.getHandle(`${handle.workflowId}/${database}`);
  const said = (await answer(world, () => child.query<DatabaseProgress>('progress')))?.message ?? '';
  try {
    const report = (await handle.result()) as ClusterReport;
    return { how: 'done', report, message: report.databases[0]?.message ?? '', said, parked };
  } catch (error) {
    const { cause } = error as Error;
    const message = cause instanceof Error ? cause.message : String(error);
    const cancelled = (await handle.describe()).status.name === 'CANCELLED';
    return { how: cancelled ? 'cancelled' : 'failed', report: null, message, said, parked };
  }
}

/** null: nobody answered in time. */
async function answer<T>({ client }: World, ask: () => Promise<T>): Promise<T | null> {
  try {
    return await client.withDeadline(Date.now() + ANSWER_MS, ask);
  } catch {
    return null;
  }
}

const asked = (request: Promise<unknown>): Promise<boolean> =>
  request.then(
    () => true,
    () => false,
  );

/** A worker that woke up after the end may still do what it was at. */
async function quiet({ failpoints }: World, events: readonly Happened[]): Promise<void> {
  if (!events.some(({ kind, struckAt }) => kind.name === 'worker sleeps' && struckAt !== null)) return;
  let before = -1;
  await until(
    () => {
      const now = failpoints.passed().length;
      const isQuiet = now === before;
      before = now;
      return isQuiet;
    },
    20_000,
    1_500,
  );
}

/** Also after a run that went wrong, so that the next one is not about it. */
async function clearAway({ source, target, workers }: World, database: string, handle: WorkflowHandle): Promise<void> {
  for (const { server, proxy } of [source, target]) {
    proxy.refuse(false);
    proxy.stall(false);
    await server.start();
  }
  if ((await handle.describe().catch(() => null))?.status.name === 'RUNNING')
    await handle.terminate('The run is over.').catch(() => undefined);
  await workers.onlyOne();
  await source.server.psql('postgres', `ALTER DATABASE ${database} ALLOW_CONNECTIONS true`).catch(() => undefined);
  await source.server.psql(database, `ROLLBACK PREPARED 'chaos'`).catch(() => undefined);
}

async function dropDatabases({ source, target }: World, database: string): Promise<void> {
  const there = await target.server.psql('postgres', `SELECT 1 FROM pg_database WHERE datname = '${database}'`);
  const names = async (server: typeof source.server, where: string, sql: string): Promise<string[]> =>
    (await server.psql(where, sql)).split('\n').filter((name) => name !== '');
  if (there !== '') {
    const mine =
      'SELECT subname FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())';
    for (const name of await names(target.server, database, mine))
      await target.server.psql(
        database,
        `ALTER SUBSCRIPTION ${name} DISABLE; ALTER SUBSCRIPTION ${name} SET (slot_name = NONE); DROP SUBSCRIPTION ${name}`,
      );
    await target.server.psql('postgres', `DROP DATABASE ${database} WITH (FORCE)`);
  }
  const slots = `FROM pg_replication_slots WHERE database = '${database}'`;
  await until(async () => {
    await source.server.psql('postgres', `SELECT pg_terminate_backend(active_pid) ${slots}`);
    await source.server.psql('postgres', `SELECT pg_drop_replication_slot(slot_name) ${slots}`).catch(() => undefined);
    return (await names(source.server, 'postgres', `SELECT slot_name ${slots}`)).length === 0;
  }, 10_000);
  await source.server.psql('postgres', `DROP DATABASE ${database} WITH (FORCE)`);
}
