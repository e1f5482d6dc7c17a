import type { WorkflowHandle } from '@temporalio/client';
import { Client, Connection } from '@temporalio/client';
import { execFile } from 'node:child_process';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import pg from 'pg';
import { TemporalCli } from '../demo/temporal.ts';
import type { PostgresServer } from '../lab/postgres-server.ts';
import { startTemporalServer } from '../lab/temporal-server.ts';
import { startWorkerProcess } from '../lab/worker-process.ts';
import type { DatabaseProgress } from '../src/domain/progress.ts';
import { temporalCliPath } from '../src/temporal/cli-path.ts';
import { startServers } from './servers.ts';

const TRANSACTIONS_PER_SECOND = 300;
const CLIENTS = 6;
/** How often the application's tool asks whether the target is open. */
const ASK_MS = 25;
/** Writes are counted this long before the cutover is asked for. */
const WARM_UP_MS = 3_000;

interface StepTime {
  step: string;
  ms: number;
}

interface Result {
  tables: number;
  /** Last commit acknowledged on the source to first commit acknowledged on the target. */
  downtimeMs: number;
  perSecond: number;
  steps: StepTime[];
}

/** An application: it stays with a server until an error, then tries again, on the target once that is open. */
function startApplication(source: string, target: string, tables: number, isOpen: () => boolean) {
  let stopping = false;
  let committed = 0;
  let lastOnSource = 0;
  let firstOnTarget: number | null = null;
  const pause = (CLIENTS * 1000) / TRANSACTIONS_PER_SECOND;
  const run = async (): Promise<void> => {
    let onTarget = false;
    let client: pg.Client | null = null;
    while (!stopping) {
      const due = performance.now() + pause;
      try {
        if (client === null) {
          onTarget = isOpen();
          client = new pg.Client({ connectionString: onTarget ? target : source });
          client.on('error', () => undefined);
          await client.connect();
        }
        await client.query(`INSERT INTO t${1 + Math.floor(Math.random() * tables)} (v) VALUES ('live')`);
        committed += 1;
        if (onTarget) firstOnTarget ??= performance.now();
        else lastOnSource = performance.now();
      } catch {
        await client?.end().catch(() => undefined);
        client = null;
        await delay(2);
        continue;
      }
      await delay(Math.max(0, due - performance.now()));
    }
    await client?.end();
  };
  const running = Promise.all(Array.from({ length: CLIENTS }, run));
  return {
    committed: () => committed,
    downtimeMs: () => (firstOnTarget === null ? null : Math.round(firstOnTarget - lastOnSource)),
    stop: async () => {
      stopping = true;
      await running;
    },
  };
}

/** What a proxy's tool would ask: until the phase says so the target would take writes that the cutover does not expect. */
async function untilOpen(handle: WorkflowHandle): Promise<void> {
  for (let phase = ''; !['finishing', 'done'].includes(phase); await delay(ASK_MS))
    ({ phase } = await handle.query<DatabaseProgress>('progress'));
}

interface HistoryEvent {
  eventId: string;
  eventTime: string;
  activityTaskScheduledEventAttributes?: { activityType: { name: string } };
  activityTaskStartedEventAttributes?: { scheduledEventId: string };
  activityTaskCompletedEventAttributes?: { scheduledEventId: string };
}

/** Started to completed, and before each step what Temporal and the worker took to get to it. */
async function stepTimes(address: string, workflowId: string): Promise<StepTime[]> {
  const { stdout } = await promisify(execFile)(
    temporalCliPath(),
    ['workflow', 'show', '-w', workflowId, '-o', 'json', '--address', address],
    { maxBuffer: 256 * 1024 * 1024 },
  );
  const { events } = JSON.parse(stdout) as { events: HistoryEvent[] };
  const names = new Map<string, string>();
  const started = new Map<string, number>();
  const steps: StepTime[] = [];
  let inCutover = false;
  let before: number | null = null;
  for (const event of events) {
    const at = Date.parse(event.eventTime);
    const name = event.activityTaskScheduledEventAttributes?.activityType.name;
    if (name !== undefined) names.set(event.eventId, name);
    const begun = event.activityTaskStartedEventAttributes?.scheduledEventId;
    if (begun !== undefined) started.set(begun, at);
    const ended = event.activityTaskCompletedEventAttributes?.scheduledEventId;
    if (ended === undefined) continue;
    const step = names.get(ended) ?? '?';
    inCutover ||= step === 'waitForGate';
    if (!inCutover || step === 'measure' || step === 'watchReplication') continue;
    const from = started.get(ended) ?? at;
    if (before !== null) steps.push({ step: `(to ${step})`, ms: from - before });
    steps.push({ step, ms: at - from });
    before = at;
  }
  return steps;
}

async function load(source: PostgresServer, database: string, tables: number): Promise<void> {
  await source.psql('postgres', `CREATE DATABASE ${database}`);
  await source.psql(
    database,
    `SELECT format('CREATE TABLE t%s (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text)', n) FROM generate_series(1, ${tables}) n \\gexec
     SELECT format('INSERT INTO t%s (v) SELECT ''old'' FROM generate_series(1, 100)', n) FROM generate_series(1, ${tables}) n \\gexec`,
  );
}

async function main(sizes: readonly number[]): Promise<void> {
  const [{ source, target }, temporal] = await Promise.all([
    startServers({ source: 17, target: 18 }),
    startTemporalServer({}),
  ]);
  await startWorkerProcess({
    SOURCE_SERVICE_URI: source.uri('postgres'),
    TARGET_SERVICE_URI: target.uri('postgres'),
    TEMPORAL_ADDRESS: temporal.address,
  });
  const cli = new TemporalCli(temporalCliPath(), temporal.address, () => undefined);
  const client = new Client({ connection: await Connection.connect({ address: temporal.address }) });
  const results: Result[] = [];
  for (const tables of sizes) {
    const database = `cutover${tables}`;
    await load(source, database, tables);
    await cli.start(database, { databases: { include: [database] }, stop: { fence: 'read-only' } });
    for (let phase = ''; phase !== 'streaming'; await delay(500)) {
      phase = (await cli.progress(database).catch(() => null))?.databases[0]?.phase ?? '';
      if (phase === 'failed') throw new Error(`The migration of ${database} failed.`);
    }
    let isOpen = false;
    const application = startApplication(source.uri(database), target.uri(database), tables, () => isOpen);
    await delay(WARM_UP_MS);
    const perSecond = Math.round((application.committed() * 1000) / WARM_UP_MS);
    await cli.signalStop(database, 'bench');
    await untilOpen(client.workflow.getHandle(`${database}/${database}`));
    isOpen = true;
    const { failure } = await cli.result(database);
    while (failure === null && application.downtimeMs() === null) await delay(50);
    await application.stop();
    const downtimeMs = application.downtimeMs();
    if (failure !== null || downtimeMs === null) throw new Error(`The cutover of ${database} failed: ${failure ?? ''}`);
    results.push({
      tables,
      downtimeMs,
      perSecond,
      steps: await stepTimes(temporal.address, `${database}/${database}`),
    });
    print(results.slice(-1));
  }
  console.log(JSON.stringify(results));
}

function print(results: readonly Result[]): void {
  for (const { tables, downtimeMs, perSecond, steps } of results) {
    console.log(`\n${tables} tables, ${perSecond} transactions a second: write downtime ${downtimeMs} ms\n`);
    console.log('| step | ms |\n|:--|--:|');
    for (const { step, ms } of steps) console.log(`| ${step} | ${ms} |`);
  }
}

const sizes = process.argv.slice(2).map(Number);
if (sizes.some((size) => !Number.isInteger(size) || size < 1)) {
  console.error('npm run bench:cutover [-- TABLES …]: how many tables there are, 10 100 1000 without.');
  process.exit(2);
}
// What this process started ends with it, however it ends (lab/processes.ts).
main(sizes.length === 0 ? [10, 100, 1000] : sizes)
  .then(() => process.exit(0))
  .catch((error: unknown) => {
    console.error(error instanceof Error ? error.message : error);
    process.exit(1);
  });
