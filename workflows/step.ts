import { proxyActivities, workflowInfo } from '@temporalio/workflow';
import type { Activities } from '../activities/index.ts';
import { lanesTaskQueue } from '../src/contract.ts';
import { activityOptions } from './activity-options.ts';

const MAX_SUMMARY = 200;

/** What an activity answers. */
export type Answer<Name extends keyof Activities> = Awaited<ReturnType<Activities[Name]>>;

type Run = <Name extends keyof Activities>(
  name: Name,
  summary: string,
  ...args: Parameters<Activities[Name]>
) => Promise<Answer<Name>>;

/**
 * Runs one activity. `summary` is what the Web UI shows beside it: plain words, what is done to which database.
 */
export const step: Run = (name, summary, ...args) => run(false, name, summary, args);

/** The same for what a cancelled or failed migration still does: tried for an hour, whatever kind of step it is. */
export const endStep: Run = (name, summary, ...args) => run(true, name, summary, args);

function run<Name extends keyof Activities>(
  atEnd: boolean,
  name: Name,
  summary: string,
  args: Parameters<Activities[Name]>,
): Promise<Answer<Name>> {
  const options = activityOptions(name, lanesTaskQueue(workflowInfo().taskQueue), atEnd);
  const activity = proxyActivities<Activities>(options)[name] as unknown as {
    executeWithOptions(options: object, args: unknown[]): Promise<Answer<Name>>;
  };
  return activity.executeWithOptions({ ...options, summary: summary.slice(0, MAX_SUMMARY) }, args);
}
