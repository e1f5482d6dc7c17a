import { proxyActivities, workflowInfo } from '@temporalio/workflow';
import type { Activities } from '../activities/index.ts';
import { lanesTaskQueue } from '../src/contract.ts';
import { activityOptions } from './activity-options.ts';

const MAX_SUMMARY = 200;

/** What an activity answers. */
export type Answer<Name extends keyof Activities> = Awaited<ReturnType<Activities[Name]>>;

/**
 * Runs one activity. `summary` is what the Web UI shows beside it: plain words, what is done to which database.
 */
export function step<Name extends keyof Activities>(
  name: Name,
  summary: string,
  ...args: Parameters<Activities[Name]>
): Promise<Answer<Name>> {
  const options = activityOptions(name, lanesTaskQueue(workflowInfo().taskQueue));
  const activity = proxyActivities<Activities>(options)[name] as unknown as {
    executeWithOptions(options: object, args: unknown[]): Promise<Answer<Name>>;
  };
  return activity.executeWithOptions({ ...options, summary: summary.slice(0, MAX_SUMMARY) }, args);
}
