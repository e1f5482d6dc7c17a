import { setTimeout as delay } from 'node:timers/promises';
import { startPostgres } from '../lab/postgres-server.ts';
import type { TemporalServer } from '../lab/temporal-server.ts';
import { startTemporalServer } from '../lab/temporal-server.ts';
import { temporalCliPath } from '../src/temporal/cli-path.ts';
import { startWorkerProcess } from '../lab/worker-process.ts';
import type { ClusterProgress, ClusterReport } from '../src/domain/progress.ts';
import { compareDatabases } from './compare.ts';
import { DEMO_DATABASES, loadDemoData } from './data.ts';
import { TemporalCli } from './temporal.ts';
import { startWriters } from './writers.ts';

const WORKFLOW_ID = 'blue-green';
const WRITES_PER_SECOND = 100;
const PLAN = { stop: { fence: 'read-only' } };

const started = performance.now();
const say = (line: string): void =>
  console.log(`${((performance.now() - started) / 1000).toFixed(1).padStart(6)} s  ${line}`);

/** The whole main job on this machine. Exit status 0 only when every row is equal. */
async function main(keep: boolean): Promise<number> {
  say('Starting PostgreSQL 17 (source), PostgreSQL 18 (target) and a Temporal server.');
  const [source, target, temporal] = await Promise.all([
    startPostgres({ major: 17, auth: 'scram-sha-256', password: 'demo-source' }),
    startPostgres({ major: 18, auth: 'scram-sha-256', password: 'demo-target' }),
    startTemporalServer({ headless: false }),
  ]);
  say(`Temporal Web UI: ${temporal.uiAddress ?? 'none'}`);

  say(`Loading the databases ${DEMO_DATABASES.join(' and ')} onto the source.`);
  await loadDemoData(source);

  say('Starting a worker: ./bin/pgtransit worker');
  await startWorkerProcess({
    SOURCE_SERVICE_URI: source.uri('postgres'),
    TARGET_SERVICE_URI: target.uri('postgres'),
    TEMPORAL_ADDRESS: temporal.address,
  });

  const writers = startWriters((database) => source.uri(database), WRITES_PER_SECOND);
  say(`Writing to both databases, ${WRITES_PER_SECOND} transactions a second each, until the source is fenced.`);

  const cli = new TemporalCli(temporalCliPath(), temporal.address, say);
  await cli.start(WORKFLOW_ID, PLAN);
  const reached = await watch(cli, (progress) => progress.databases.length > 0 && progress.phase === 'streaming');
  if (reached.phase !== 'streaming') {
    say(`The migration failed: ${(await cli.result(WORKFLOW_ID)).failure ?? 'no reason was given'}`);
    return keepRunning(keep, temporal, 1);
  }

  const before = writers.committed();
  say(`Both databases stream; the source has taken ${before} transactions meanwhile. Cutting over.`);
  await cli.signalStop(WORKFLOW_ID, 'cutover');
  await watch(cli, (progress) => ['done', 'failed', 'cancelled'].includes(progress.phase));
  await writers.stop();
  say(`The writers have ended after ${writers.committed()} transactions. ${writers.ended().join(' ')}`);

  const { report, failure } = await cli.result(WORKFLOW_ID);
  if (report === null) {
    say(`The migration failed: ${failure ?? 'no reason was given'}`);
    return keepRunning(keep, temporal, 1);
  }

  say('Comparing every row and every sequence of both sides.');
  const comparisons = await Promise.all(
    DEMO_DATABASES.map((database) => compareDatabases(database, source.uri(database), target.uri(database))),
  );
  printReport(report);
  let equal = true;
  for (const { database, tables, rows, differences } of comparisons) {
    console.log(
      `${database}: ${tables} relations, ${rows} rows, ${differences.length === 0 ? 'all equal' : `${differences.length} DIFFERENCES`}`,
    );
    for (const difference of differences) console.log(`  ${difference}`);
    equal &&= differences.length === 0;
  }
  return keepRunning(keep, temporal, equal ? 0 : 1);
}

/** Shows each change of the progress until `until` holds. */
async function watch(cli: TemporalCli, until: (progress: ClusterProgress) => boolean): Promise<ClusterProgress> {
  let shown = '';
  for (;;) {
    const progress = await cli.progress(WORKFLOW_ID).catch(() => null);
    if (progress !== null) {
      const now = progress.databases.map(describe).join('   ');
      if (now !== shown && now !== '') say(now);
      shown = now;
      if (progress.attention !== null) say(`needs you: ${progress.attention}`);
      if (until(progress) || ['failed', 'cancelled'].includes(progress.phase)) return progress;
    }
    await delay(1000);
  }
}

const megabytes = (bytes: number): string => `${Math.round(bytes / 1e6)} MB`;

function describe({ database, phase, bytes, lagBytes }: ClusterProgress['databases'][number]): string {
  const lag = lagBytes === null ? '' : `, ${lagBytes} bytes behind`;
  return `${database}: ${phase}, ${megabytes(bytes.copied)} of ${megabytes(bytes.total)}${lag}`;
}

function printReport(report: ClusterReport): void {
  console.log(`\nReport of ${report.id}: ${report.status}`);
  console.log(`Roles: ${report.roles.map(({ role, status }) => `${role} ${status}`).join(', ') || 'none'}`);
  for (const { database, method, status, message, seconds, warnings } of report.databases) {
    console.log(`${database}: ${status} by ${method ?? '?'}. ${message}`);
    console.log(
      `  seconds: ${Object.entries(seconds)
        .map(([phase, s]) => `${phase} ${s}`)
        .join(', ')}`,
    );
    for (const warning of warnings) console.log(`  warning: ${warning}`);
  }
  console.log('');
}

async function keepRunning(keep: boolean, temporal: TemporalServer, status: number): Promise<number> {
  if (!keep) return status;
  console.log(`
Everything is left running; Ctrl-C ends it and deletes its data.
  Web UI: ${temporal.uiAddress ?? 'none'}
  export TEMPORAL_ADDRESS=${temporal.address}; alias temporal=${temporalCliPath()}
  temporal workflow list
  temporal workflow show -w ${WORKFLOW_ID}
  temporal workflow query -w ${WORKFLOW_ID} --type progress
  temporal workflow start --task-queue pgtransit --type validateCluster --workflow-id look --input '{"databases":{"include":["shop"]}}'
  temporal workflow result -w look`);
  await new Promise((resolve) => {
    process.once('SIGINT', resolve);
    process.once('SIGTERM', resolve);
    setInterval(() => undefined, 2 ** 30);
  });
  return status;
}

const unknownOption = process.argv.slice(2).find((argument) => argument !== '--keep');
if (unknownOption !== undefined) {
  console.error(`npm run demo has no option ${unknownOption}; there is --keep, which leaves everything running.`);
  process.exit(2);
}
// What this process started ends with it, however it ends (lab/processes.ts).
main(process.argv.includes('--keep'))
  .then((status) => process.exit(status))
  .catch((error: unknown) => {
    console.error(error instanceof Error ? error.message : error);
    process.exit(1);
  });
