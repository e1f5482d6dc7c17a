import type { Client } from '@temporalio/client';
import { WorkflowNotFoundError, defaultPayloadConverter } from '@temporalio/common';
import proto from '@temporalio/proto';
import type { temporal } from '@temporalio/proto';
import type { PendingStep } from './view/live.ts';

const { PENDING_ACTIVITY_STATE_SCHEDULED } = proto.temporal.api.enums.v1.PendingActivityState;

/** The steps of one workflow that have not ended, with their last heartbeats. None when there is no such workflow. */
export async function pendingSteps(client: Client, workflowId: string): Promise<PendingStep[]> {
  try {
    const { raw } = await client.workflow.getHandle(workflowId).describe();
    return (raw.pendingActivities ?? []).map(toStep);
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) return [];
    throw error;
  }
}

function toStep(activity: temporal.api.workflow.v1.IPendingActivityInfo): PendingStep {
  const waits = activity.state === PENDING_ACTIVITY_STATE_SCHEDULED;
  return {
    id: activity.activityId ?? '',
    name: activity.activityType?.name ?? '',
    attempt: activity.attempt ?? 1,
    failure: waits ? (activity.lastFailure?.message ?? null) : null,
    details: detailsOf(activity),
  };
}

/** Details that an encrypting worker wrote are not for us. */
function detailsOf({ heartbeatDetails }: temporal.api.workflow.v1.IPendingActivityInfo): PendingStep['details'] {
  const [payload] = heartbeatDetails?.payloads ?? [];
  if (payload === undefined) return {};
  try {
    const details = defaultPayloadConverter.fromPayload<PendingStep['details'] | null>(payload);
    return typeof details === 'object' && details !== null ? details : {};
  } catch {
    return {};
  }
}
