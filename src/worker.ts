import { setTimeout as delay } from 'node:timers/promises';
import type { WorkerDeploymentVersion } from '@temporalio/common';
import { VersioningBehavior } from '@temporalio/common';
import type { NativeConnection, WorkerDeploymentOptions, WorkerOptions } from '@temporalio/worker';
import { Worker } from '@temporalio/worker';
import type { Logger } from 'pino';
import type { ActivityDeps } from '../activities/context.ts';
import { createActivities } from '../activities/index.ts';
import { lanesTaskQueue } from './contract.ts';
import { LIMITS } from './domain/limits.ts';
import { resolveReference } from './postgres/conninfo.ts';
import { passwordsInFile } from './postgres/passfile.ts';
import { errorInterceptor } from './temporal/error-interceptor.ts';
import { pollsBoth } from './temporal/pollers.ts';
import { messageOf } from './temporal/connection.ts';
import type { Secrets } from './temporal/secrets.ts';
import { secretsOfEnvironment } from './temporal/secrets.ts';

export interface WorkerDeps extends ActivityDeps {
  secrets: Secrets;
}

/**
 * What this worker gives to its activities. References are resolved at each use: it takes microseconds, and a
 * password that was changed in a service file counts from the next attempt on.
 */
export function createDeps(
  env: NodeJS.ProcessEnv,
  options: { searchAttributes: boolean; secrets?: Secrets },
): WorkerDeps {
  const secrets = options.secrets ?? secretsOfEnvironment(env);
  return {
    secrets,
    searchAttributes: options.searchAttributes,
    verbose: env['PGTRANSIT_VERBOSE'] === '1',
    endpoint(reference, server, reader) {
      const info = resolveReference(reference, env, reader);
      for (const password of [info['password'], ...passwordsInFile(info)])
        if (password !== undefined) secrets.addConnInfo({ ...info, password });
      return { server, info };
    },
  };
}

export interface RunWorkerOptions {
  connection: NativeConnection;
  namespace: string;
  /** Workflows and short activities; the queue of the lanes is derived from it. */
  taskQueue: string;
  deps: WorkerDeps;
  /** A version of Temporal's worker versioning, which then says what goes to it; null: any worker takes any step. */
  deployment: WorkerDeploymentVersion | null;
  /** Made by scripts/build.mjs, so that every worker of a release runs the same code. */
  workflowBundlePath: string;
  /** Ends both workers, as gently as the limits allow. */
  signal: AbortSignal;
  log: Logger;
  /** Called once Temporal sees this process poll both queues. */
  onReady?: () => void;
}

/**
 * Serves both task queues until `signal` is aborted. One that fails ends the other.
 * @throws Error with one sentence.
 */
export async function runWorker(options: RunWorkerOptions): Promise<void> {
  const { taskQueue, workflowBundlePath, log } = options;
  const workers = await Promise.all([
    Worker.create({
      ...common(options),
      taskQueue,
      workflowBundle: { codePath: workflowBundlePath },
      maxConcurrentActivityTaskExecutions: LIMITS.shortActivities,
      maxCachedWorkflows: LIMITS.cachedWorkflows,
    }),
    Worker.create({
      ...common(options),
      taskQueue: lanesTaskQueue(taskQueue),
      maxConcurrentActivityTaskExecutions: LIMITS.laneActivities,
    }),
  ]);
  const ended = new AbortController();
  let failure: Error | undefined;
  const shutdown = () => {
    ended.abort();
    for (const worker of workers) if (worker.getState() === 'RUNNING') worker.shutdown();
  };
  const runs = workers.map(async (worker) => {
    try {
      await worker.run();
    } catch (error) {
      failure ??= asSentence(error, options.signal.aborted);
    } finally {
      shutdown();
    }
  });
  // Only now: a worker that does not run yet cannot be shut down.
  options.signal.addEventListener('abort', shutdown, { once: true });
  if (options.signal.aborted) shutdown();
  const ready = announce(options, ended.signal).catch((error: unknown) =>
    log.warn({ error }, 'Readiness is not known'),
  );
  await Promise.all([...runs, ready]);
  options.signal.removeEventListener('abort', shutdown);
  if (failure === undefined && !options.signal.aborted) failure = new Error('The worker ended without being asked to.');
  if (failure !== undefined) throw failure;
}

function common({ connection, namespace, deps, deployment }: RunWorkerOptions): Omit<WorkerOptions, 'taskQueue'> {
  return {
    ...(deployment === null ? {} : { workerDeploymentOptions: versioned(deployment) }),
    connection,
    namespace,
    activities: createActivities(deps),
    shutdownGraceTime: LIMITS.shutdownGraceMs,
    shutdownForceTime: LIMITS.shutdownForceMs,
    maxHeartbeatThrottleInterval: LIMITS.heartbeatThrottleMs,
    defaultHeartbeatThrottleInterval: LIMITS.heartbeatThrottleMs,
    interceptors: { activity: [(context) => ({ inbound: errorInterceptor(context, deps.secrets) })] },
  };
}

/**
 * A migration that runs for weeks goes on with the current version: pinned, it would need the workers of the day on which
 * it began until its end, and with them every bug of theirs. The replay tests are what makes that safe.
 */
const versioned = (version: WorkerDeploymentVersion): WorkerDeploymentOptions => ({
  version,
  useWorkerVersioning: true,
  defaultVersioningBehavior: VersioningBehavior.AUTO_UPGRADE,
});

async function announce(
  { connection, namespace, taskQueue, onReady }: RunWorkerOptions,
  ended: AbortSignal,
): Promise<void> {
  if (onReady === undefined) return;
  while (!ended.aborted && !(await pollsBoth(connection, namespace, taskQueue))) await delay(LIMITS.pollMs);
  if (!ended.aborted) onReady();
}

/** What fails once the end was asked for is a step that does not end; the SDK says so in more than one way. */
function asSentence(error: unknown, stopping: boolean): Error {
  const text = stopping
    ? `Steps were still running ${LIMITS.shutdownForceMs / 1000} s after the stop was asked for; the next worker tries them again.`
    : `The worker failed: ${messageOf(error)}.`;
  return new Error(text, { cause: error });
}
