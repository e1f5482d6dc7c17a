import { join } from 'node:path';
import process from 'node:process';
import { Command, Option } from 'commander';
import { DEFAULT_TASK_QUEUE, lanesTaskQueue, WORKFLOW } from '../contract.ts';
import { packageRoot } from '../package-root.ts';
import { resolveReference } from '../postgres/conninfo.ts';
import { connectToTemporal, messageOf, readTemporalTarget } from '../temporal/connection.ts';
import { readDeployment } from '../temporal/deployment.ts';
import { pollsBoth } from '../temporal/pollers.ts';
import { createLog, installRuntime } from '../temporal/runtime.ts';
import type { Secrets } from '../temporal/secrets.ts';
import { ensureSearchAttributes } from '../temporal/search-attributes.ts';
import { createDeps, runWorker } from '../worker.ts';

const HELP = `
The worker carries out migrations that are started through Temporal. Run as many as you like, anywhere that reaches
Temporal and both PostgreSQL servers; one that dies costs nothing, another one goes on.

Environment:
  SOURCE_SERVICE_URI, TARGET_SERVICE_URI   the servers that a plan uses when it names no others (env:NAME)
  TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_API_KEY, TEMPORAL_TLS, …   as for the Temporal CLI; temporal.toml too
  TEMPORAL_DEPLOYMENT_NAME, TEMPORAL_WORKER_BUILD_ID   both: a version of a Temporal worker deployment
  PGTRANSIT_TASK_QUEUE                     the same as --task-queue
  PGTRANSIT_LOG_LEVEL                      trace, debug, info (default), warn, error; the log goes to stderr

Examples:
  SOURCE_SERVICE_URI=postgres://app@old.example TARGET_SERVICE_URI=postgres://app@new.example pgtransit worker
  TEMPORAL_ADDRESS=temporal.internal:7233 TEMPORAL_NAMESPACE=databases pgtransit worker --task-queue blue`;

interface Flags {
  taskQueue: string;
  check?: boolean;
}

export function workerCommand(secrets: Secrets): Command {
  return new Command('worker')
    .description('serve migrations that are started through Temporal, until it is told to stop')
    .addOption(
      new Option('--task-queue <name>', 'queue of workflows and short steps; long steps use <name>-lanes')
        .env('PGTRANSIT_TASK_QUEUE')
        .default(DEFAULT_TASK_QUEUE),
    )
    .option(
      '--check',
      'only tell, by the exit code, whether a worker on this host polls both queues (for health checks)',
    )
    .addHelpText('after', HELP)
    .action((flags: Flags) => (flags.check === true ? check(flags, secrets) : work(flags, secrets)));
}

async function work({ taskQueue }: Flags, secrets: Secrets): Promise<void> {
  const say = (line: string) => process.stdout.write(`${secrets.mask(line)}\n`);
  const signal = stopSignal(say);
  const log = createLog(process.env, secrets);
  installRuntime(log);
  const target = readTemporalTarget(process.env);
  const deployment = readDeployment(process.env);
  const connection = await connectToTemporal(target);
  const attributes = await ensureSearchAttributes(connection, target.namespace, signal);

  const lanes = lanesTaskQueue(taskQueue);
  say(`Temporal            ${target.address}, namespace ${target.namespace}`);
  say(`Task queues         ${taskQueue} (workflows, short steps) and ${lanes} (long steps)`);
  if (deployment !== null) say(`Deployment version  ${deployment.deploymentName}.${deployment.buildId}`);
  say(`Search attributes   ${attributes.message}`);
  for (const name of ['SOURCE_SERVICE_URI', 'TARGET_SERVICE_URI']) say(`${name}  ${describeServer(name)}`);
  say(nextCommands(taskQueue));

  await runWorker({
    connection,
    namespace: target.namespace,
    taskQueue,
    deployment,
    deps: createDeps(process.env, { searchAttributes: attributes.registered, secrets }),
    workflowBundlePath: join(packageRoot(), 'dist', 'workflow-bundle.js'),
    signal,
    log,
    onReady: () => say(`ready: polling ${taskQueue} and ${lanes}`),
  });
  await connection.close();
  say('stopped');
}

/** For container health checks: asks Temporal, which is what counts, instead of looking at a file or a port. */
async function check({ taskQueue }: Flags, secrets: Secrets): Promise<void> {
  installRuntime(createLog({ PGTRANSIT_LOG_LEVEL: 'silent' }, secrets));
  const target = readTemporalTarget(process.env);
  const connection = await connectToTemporal(target);
  const polls = await pollsBoth(connection, target.namespace, taskQueue, 'host');
  await connection.close();
  if (!polls) throw new Error(`No worker on this host polls ${taskQueue} and ${lanesTaskQueue(taskQueue)}.`);
}

/** Aborted by the first SIGINT or SIGTERM; the second one ends the process at once. */
function stopSignal(say: (line: string) => void): AbortSignal {
  const stop = new AbortController();
  const onSignal = (name: NodeJS.Signals) => {
    if (stop.signal.aborted) process.exit(1);
    say(`${name}: stopping; running steps are ended and go on with the next worker (once more to exit at once)`);
    stop.abort();
  };
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal);
  return stop.signal;
}

/** Where a variable leads, without its password. A wrong one is told now, and fails only the plans that name it. */
function describeServer(name: string): string {
  if ((process.env[name] ?? '').trim() === '') return 'not set';
  try {
    const { host, port, user } = resolveReference(`env:${name}`, process.env);
    return `host ${host}, port ${port ?? '5432'}, user ${user}`;
  } catch (error) {
    return messageOf(error);
  }
}

const nextCommands = (taskQueue: string): string => `
To try next:
  temporal workflow start --task-queue ${taskQueue} --type ${WORKFLOW.validateCluster} --workflow-id blue-green-check
  temporal workflow start --task-queue ${taskQueue} --type ${WORKFLOW.migrateCluster} --workflow-id blue-green
  temporal workflow query --workflow-id blue-green --type progress
  temporal workflow signal --workflow-id blue-green --name stopReplication --input '{"reason":"cutover"}'
`;
