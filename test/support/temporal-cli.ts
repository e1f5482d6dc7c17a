import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { inject } from 'vitest';
import { temporalCliPath } from '../../src/temporal/cli-path.ts';

/** The Temporal CLI, as an operator uses it, at the server of the run. */
export async function temporal(...args: string[]): Promise<string> {
  const command = [...args, '--address', inject('temporalAddress')];
  return (await promisify(execFile)(temporalCliPath(), command, { maxBuffer: 2 ** 26, timeout: 30_000 })).stdout;
}

interface Event {
  eventId: string;
  eventType: string;
  activityTaskScheduledEventAttributes?: { activityType: { name: string } };
}

/** `temporal workflow reset`, to FirstWorkflowTask or LastWorkflowTask, or so that this activity is the next thing it does. */
export async function reset(workflowId: string, to: string): Promise<void> {
  await temporal('workflow', 'reset', '-w', workflowId, '--reason', 'a test', ...(await place(workflowId, to)));
}

async function place(workflowId: string, to: string): Promise<string[]> {
  if (to.endsWith('WorkflowTask')) return ['--type', to];
  const shown = await temporal('workflow', 'show', '-w', workflowId, '--output', 'json');
  const { events } = JSON.parse(shown) as { events: Event[] };
  const scheduled = events.findIndex((event) => event.activityTaskScheduledEventAttributes?.activityType.name === to);
  const before = events.slice(0, Math.max(0, scheduled));
  const task = before.findLast(({ eventType }) => eventType === 'EVENT_TYPE_WORKFLOW_TASK_COMPLETED');
  if (task === undefined) throw new Error(`${workflowId} has not come to ${to}.`);
  return ['--event-id', task.eventId];
}
