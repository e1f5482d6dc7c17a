import { hostname } from 'node:os';
import proto from '@temporalio/proto';
import type { NativeConnection } from '@temporalio/worker';
import { lanesTaskQueue } from '../contract.ts';
import { LIMITS } from '../domain/limits.ts';

const { TASK_QUEUE_TYPE_WORKFLOW: WORKFLOW, TASK_QUEUE_TYPE_ACTIVITY: ACTIVITY } =
  proto.temporal.api.enums.v1.TaskQueueType;

/** Whether Temporal sees a worker of this host (or of this process only) poll both queues. */
export async function pollsBoth(
  connection: NativeConnection,
  namespace: string,
  taskQueue: string,
  who: 'process' | 'host' = 'process',
): Promise<boolean> {
  // The SDK's default identity is pid@host.
  const isOurs = (identity: string) =>
    who === 'process' ? identity === `${process.pid}@${hostname()}` : identity.endsWith(`@${hostname()}`);
  const isPolled = async (name: string, taskQueueType: number) => {
    const { pollers } = await connection.workflowService.describeTaskQueue({
      namespace,
      taskQueue: { name },
      taskQueueType,
    });
    return pollers.some(({ identity }) => isOurs(identity ?? ''));
  };
  const all = () =>
    Promise.all([
      isPolled(taskQueue, WORKFLOW),
      isPolled(taskQueue, ACTIVITY),
      isPolled(lanesTaskQueue(taskQueue), ACTIVITY),
    ]);
  const answers = await connection.withDeadline(Date.now() + LIMITS.temporalConnectMs, all);
  return answers.every((polled) => polled);
}
