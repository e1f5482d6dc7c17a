import { Client } from '@temporalio/client';
import type { NativeConnection } from '@temporalio/worker';
import { Worker } from '@temporalio/worker';
import proto from '@temporalio/proto';
import { join } from 'node:path';
import { LIMITS } from '../domain/limits.ts';
import { packageRoot } from '../package-root.ts';
import type { TemporalTarget } from './connection.ts';
import { configuredTarget, connectToTemporal } from './connection.ts';
import { NAMESPACE } from './dev-server.ts';
import { joinLocalServer } from './local-server.ts';
import { hasDiedHere, isOnThisHost } from './worker-identity.ts';

/** A Temporal server to start migrations on and to ask about them: a configured one, or our own. */
export interface TemporalSession {
  kind: 'configured' | 'local';
  target: TemporalTarget;
  connection: NativeConnection;
  client: Client;
  /** Address of our own server's Web UI. */
  webUi: string | null;
  close(): Promise<void>;
}

/**
 * Connects to the Temporal server of the environment (`TEMPORAL_*`, temporal.toml); where none is configured, to our
 * own, which is started if need be.
 * @throws Error with one sentence
 */
export async function openTemporal(env: NodeJS.ProcessEnv, stateDir: () => string): Promise<TemporalSession> {
  const configured = configuredTarget(env);
  if (configured !== null) return sessionOn(await connectToTemporal(configured), configured);
  const server = await joinLocalServer(stateDir(), env);
  const target = {
    address: server.address,
    namespace: NAMESPACE,
    connectionOptions: { address: server.address },
  };
  try {
    const session = sessionOn(await connectToTemporal(target), target);
    const close = async () => {
      await session.close();
      server.leave();
    };
    return { ...session, kind: 'local', webUi: server.webUi, close };
  } catch (error) {
    server.leave();
    throw error;
  }
}

function sessionOn(connection: NativeConnection, target: TemporalTarget): TemporalSession {
  return {
    kind: 'configured',
    target,
    connection,
    client: new Client({ connection, namespace: target.namespace }),
    webUi: null,
    close: () => connection.close(),
  };
}

export const workflowBundlePath = (): string => join(packageRoot(), 'dist', 'workflow-bundle.js');

/**
 * Runs `work` while somebody answers queries and updates on a task queue. Where no worker polls it, one of ours does,
 * which carries out no steps: it knows the workflows, but none of the servers.
 */
export async function withQueries<T>(
  session: Pick<TemporalSession, 'connection' | 'target'>,
  taskQueue: string,
  work: () => Promise<T>,
): Promise<T> {
  if (await isPolled(session, taskQueue, 'workflows')) return work();
  const { connection, target } = session;
  const worker = await Worker.create({
    connection,
    namespace: target.namespace,
    taskQueue,
    workflowBundle: { codePath: workflowBundlePath() },
    maxCachedWorkflows: LIMITS.cachedWorkflows,
    shutdownGraceTime: 0,
  });
  return worker.runUntil(work);
}

const { TASK_QUEUE_TYPE_WORKFLOW, TASK_QUEUE_TYPE_ACTIVITY } = proto.temporal.api.enums.v1.TaskQueueType;

/** Whether some worker asks for the workflows of a task queue, or for its steps. */
export async function isPolled(
  { connection, target }: Pick<TemporalSession, 'connection' | 'target'>,
  taskQueue: string,
  what: 'workflows' | 'steps',
): Promise<boolean> {
  const { pollers } = await connection.workflowService.describeTaskQueue({
    namespace: target.namespace,
    taskQueue: { name: taskQueue },
    taskQueueType: what === 'workflows' ? TASK_QUEUE_TYPE_WORKFLOW : TASK_QUEUE_TYPE_ACTIVITY,
  });
  // A poller that ended is listed for five minutes; one that lives polls again at least every minute.
  const alive = ({ identity, lastAccessTime }: proto.temporal.api.taskqueue.v1.IPollerInfo) =>
    isOnThisHost(identity ?? '')
      ? !hasDiedHere(identity ?? '')
      : Date.now() - Number(lastAccessTime?.seconds ?? 0) * 1000 < LIMITS.pollerAliveMs;
  return pollers.some(alive);
}
