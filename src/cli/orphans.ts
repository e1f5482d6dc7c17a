import type { Client } from '@temporalio/client';
import { ActivityNotFoundError } from '@temporalio/client';
import proto from '@temporalio/proto';
import { hasDiedHere } from '../temporal/worker-identity.ts';

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
    if (state !== STARTED || !hasDiedHere(lastWorkerIdentity ?? '')) continue;
    const reason = new Error('The process that carried this step out has ended.');
    await client.activity.fail({ workflowId, runId, activityId: activityId ?? '' }, reason).catch((error: unknown) => {
      // Its heartbeat was overdue at this very moment.
      if (!(error instanceof ActivityNotFoundError)) throw error;
    });
  }
}
