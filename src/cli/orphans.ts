import { hostname } from 'node:os';
import process from 'node:process';
import type { Client } from '@temporalio/client';
import { ActivityNotFoundError } from '@temporalio/client';
import proto from '@temporalio/proto';

const { PENDING_ACTIVITY_STATE_STARTED: STARTED } = proto.temporal.api.enums.v1.PendingActivityState;

/**
 * Steps that a process of this machine had in hand when it died would be waited for until their heartbeat is overdue.
 * Whoever goes on with the migration knows that the process is gone, and lets Temporal try them again at once.
 */
export async function releaseOrphanedSteps(client: Client, migration: string): Promise<void> {
  const { raw } = await client.workflow.getHandle(migration).describe();
  const children = (raw.pendingChildren ?? []).map(({ workflowId }) => workflowId ?? '');
  await Promise.all([migration, ...children].map((workflowId) => releaseIn(client, workflowId)));
}

async function releaseIn(client: Client, workflowId: string): Promise<void> {
  const { raw, runId } = await client.workflow.getHandle(workflowId).describe();
  for (const { activityId, state, lastWorkerIdentity } of raw.pendingActivities ?? []) {
    if (state !== STARTED || !isDeadHere(lastWorkerIdentity ?? '')) continue;
    const reason = new Error('The process that carried this step out has ended.');
    await client.activity.fail({ workflowId, runId, activityId: activityId ?? '' }, reason).catch((error: unknown) => {
      // Its heartbeat was overdue at this very moment.
      if (!(error instanceof ActivityNotFoundError)) throw error;
    });
  }
}

/** The SDK's workers are called pid@host. A number that another process has by now is waited for instead. */
function isDeadHere(identity: string): boolean {
  const [pid, host] = identity.split('@');
  if (host !== hostname() || !/^\d+$/.test(pid ?? '')) return false;
  try {
    process.kill(Number(pid), 0);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH';
  }
}
