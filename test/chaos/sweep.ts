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

/** What happens besides, and in which steps the worker is killed then; default: all. */
const MODES = {
  replication: { method: 'replication', after: null, first: [], steps: null },
  dump: { method: 'dump', after: null, first: [], steps: null },
  cancel: {
    method: 'replication',
    after: null,
    first: [at('cancel', 'waitForDrain@1:before')],
    steps: ['undo', 'unfence'],
  },
  abort: {
    method: 'replication',
    after: null,
    first: [at('write behind the fence', 'walAfterMark@1:before')],
    steps: ['unfence', 'enableSubscriptions'],
  },
  'cancel-moved': {
    method: 'replication',
    after: null,
    first: [at('cancel', 'dropReplication@1:before')],
    steps: ['dropReplication', 'clearAway', 'finish'],
  },
  'cancel-armed': {
    method: 'replication',
    after: 'rollback',
    first: [at('cancel', 'armReverse/result#1:before')],
    steps: ['dropReverse', 'enableSubscriptions', 'unfence', 'undo'],
  },
  rollback: {
    method: 'replication',
    after: 'rollback',
    first: [],
    steps: ['armReverse', 'settle', 'fenceTarget', 'drainBack', 'closeBack', 'unfence', 'dropReverse', 'finish'],
  },
  'rollback-abort': {
    method: 'replication',
    after: 'rollback',
    first: [at('write behind the fence of the target', 'closeBack@1:before')],
    steps: ['unfenceTarget', 'enableReverse', 'fenceTarget', 'drainBack', 'closeBack'],
  },
  complete: { method: 'replication', after: 'complete', first: [], steps: ['settle', 'dropReverse', 'finish'] },
  generations: {
    method: 'replication',
    after: null,
    first: [at('end holder', 'copyTables@21:during')],
    steps: [
      'closeGeneration',
      'openSnapshot',
      'planCopy',
      'restoreForeignKeys',
      'createSubscription',
      'dropReplication',
    ],
  },
} as const satisfies Record<
  string,
  Pick<RunPlan, 'method' | 'after'> & { first: PlannedEvent[]; steps: readonly Step[] | null }
>;

export type SweepMode = keyof typeof MODES;

/** Kills the worker at every failpoint of a migration at which something changes: before, during and after each. */
export async function sweep(mode: SweepMode, say: Say): Promise<RunResult[]> {
  if (!(mode in MODES)) throw new Error(`There is no mode "${mode}"; there are ${Object.keys(MODES).join(', ')}.`);
  const { method, after, first, steps } = MODES[mode];
  const plan = (seed: number, kills: PlannedEvent[]): RunPlan => ({
    seed,
    sourceMajor: 17,
    targetMajor: 18,
    method,
    ranged: mode === 'generations',
    verify: 'copied',
    after,
    events: [...first, ...kills],
  });
  const [clean] = await campaign([plan(FIRST_SEED, [])], say);
  const wanted = (step: Step): boolean => steps === null || (steps as readonly Step[]).includes(step);
  const failpoints = [...new Set(clean?.effects)].filter((name) => isFirst(name) && wanted(stepOf(name)));
  const count = Math.ceil(failpoints.length / KILLS_PER_RUN);
  // Dealt like cards, so that the kills of a run are spread over it.
  const plans = Array.from({ length: count }, (_, run) =>
    plan(
      FIRST_SEED + 1 + run,
      failpoints.filter((_name, index) => index % count === run).map((name) => at('kill worker', name)),
    ),
  );
  say(`${failpoints.length} failpoints of ${mode} in ${count} runs`);
  const results = await campaign(plans, say);
  const missed = results.flatMap(({ events }) => events.filter(({ struckAt }) => struckAt === null));
  const names = missed.map(({ failpoint }) => failpoint).join(', ') || 'none';
  say(`Not come to, since an earlier kill had changed the way: ${names}`);
  return results;
}

/** Measuring changes nothing, and is in no phase. */
const isFirst = (name: string): boolean =>
  phaseOf(stepOf(name)) !== 'other' && Number(/#(\d+):/.exec(name)?.[1]) <= MOST_TIMES;

function stepOf(name: string): Step {
  return name.split(/[/@]/)[0] as Step;
}

function at(event: string, failpoint: string): PlannedEvent {
  const kind = EVENTS.find(({ name }) => name === event);
  if (kind === undefined) throw new Error(`There is no event "${event}".`);
  return { kind, step: stepOf(failpoint), failpoint, action: kind.action ?? 'hold', lastsMs: 0 };
}
