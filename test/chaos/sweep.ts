import type { Say } from './campaign.ts';
import { campaign } from './campaign.ts';
import { EVENTS } from './events.ts';
import type { PlannedEvent, RunPlan } from './plan.ts';
import type { RunResult } from './run.ts';
import { phaseOf, type Step } from './steps.ts';

/** Each costs the time until the dead worker is noticed, so several share a migration. */
const KILLS_PER_RUN = 8;
/** Of a statement that is sent again and again: the first time and one more. */
const MOST_TIMES = 2;
/** Their databases and workflows are named after them. */
const FIRST_SEED = 1_000_000;

/** Kills the worker at every failpoint of a migration at which something changes: before, during and after each. */
export async function sweep(method: RunPlan['method'], say: Say): Promise<RunResult[]> {
  const plan = (seed: number, events: PlannedEvent[]): RunPlan => ({
    seed,
    sourceMajor: 17,
    targetMajor: 18,
    method,
    events,
  });
  const [clean] = await campaign([plan(FIRST_SEED, [])], say);
  const failpoints = [...new Set(clean?.effects)].filter(isWanted);
  const count = Math.ceil(failpoints.length / KILLS_PER_RUN);
  // Dealt like cards, so that the kills of a run are spread over it.
  const plans = Array.from({ length: count }, (_, run) =>
    plan(FIRST_SEED + 1 + run, failpoints.filter((_name, index) => index % count === run).map(killAt)),
  );
  say(`${failpoints.length} failpoints of ${method} in ${count} runs`);
  const results = await campaign(plans, say);
  const missed = results.flatMap(({ events }) => events.filter(({ struckAt }) => struckAt === null));
  say(
    `Not come to, since an earlier kill had changed the way: ${missed.map(({ failpoint }) => failpoint).join(', ') || 'none'}`,
  );
  return results;
}

const isWanted = (name: string): boolean =>
  phaseOf(stepOf(name)) !== 'other' && Number(/#(\d+):/.exec(name)?.[1]) <= MOST_TIMES;

const stepOf = (name: string): Step => name.split('/')[0] as Step;

function killAt(failpoint: string): PlannedEvent {
  const kind = EVENTS.find(({ name }) => name === 'kill worker');
  if (kind === undefined) throw new Error('No event kills workers.');
  return { kind, step: stepOf(failpoint), failpoint, action: 'kill', lastsMs: 0 };
}
