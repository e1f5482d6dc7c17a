import type { EventKind } from './events.ts';
import { EVENTS } from './events.ts';
import type { Action } from './failpoints.ts';
import { createRandom } from './random.ts';
import type { After, Step } from './steps.ts';
import { phaseOf, stepsOf, STREAMING } from './steps.ts';

export interface PlannedEvent {
  kind: EventKind;
  step: Step;
  failpoint: string;
  action: Action;
  /** ms until it is made good again */
  lastsMs: number;
}

export interface RunPlan {
  seed: number;
  sourceMajor: number;
  targetMajor: number;
  method: 'replication' | 'dump';
  /** Whether `big` is copied in ranges of its key. */
  ranged: boolean;
  verify: 'copied' | 'full';
  after: After;
  events: readonly PlannedEvent[];
}

/** Old servers and new ones, which `npm run setup` fetches; both sides alike; and 14, whose apply workers count no errors. */
const PAIRS = [
  [17, 18],
  [15, 17],
  [18, 18],
  [17, 18],
  [14, 14],
] as const;

const AFTER: readonly After[] = [null, null, null, 'rollback', 'rollback', 'complete'];

/** Most steps have more statements than this; an event that would be later comes with the step's result. */
const MOST_STATEMENTS = 25;

/** What happens in the run of this seed: one to three events, each in a step drawn alike, so that short ones are met too. */
export function planRun(seed: number): RunPlan {
  const random = createRandom(seed);
  const [sourceMajor, targetMajor] = random.pick(PAIRS);
  const method = random.next() < 0.8 ? 'replication' : 'dump';
  // Of its own dice, so that the other runs stay what they are.
  const after = method === 'replication' ? createRandom(seed + 500_000).pick(AFTER) : null;
  const steps = stepsOf(method, after);
  const possible = EVENTS.filter(
    (kind) =>
      (kind.sourceFrom ?? 0) <= sourceMajor &&
      (method === 'replication' || kind.onlyReplication !== true) &&
      (kind.steps ?? steps).some((step) => steps.includes(step)),
  );
  const count = random.between(1, 3);
  const events: PlannedEvent[] = [];
  const add = (kind: EventKind, step: Step): void => {
    // Small numbers are likelier: few steps have many statements.
    const statement = Math.ceil(MOST_STATEMENTS ** random.next());
    const when = random.pick(['before', 'during', 'after']);
    const [least, most] = kind.lasts ?? [0, 0];
    events.push({
      kind,
      step,
      failpoint: kind.failpoint ?? `${step}@${statement}:${when}`,
      // Nobody comes to a failpoint while changes stream.
      action: kind.action ?? 'hold',
      lastsMs: (least + random.next() * (most - least)) * 1000,
    });
  };
  // Of all kinds, a worker's death is the one that must cost nothing anywhere.
  const pick = (kinds: readonly EventKind[]): EventKind =>
    random.next() < 0.2 ? (kinds[0] ?? random.pick(kinds)) : random.pick(kinds);
  while (events.length < count) {
    const kind = pick(possible);
    if (events.some((event) => event.kind === kind && kind.name !== 'kill worker')) continue;
    add(kind, random.pick((kind.steps ?? steps).filter((step) => steps.includes(step))));
  }
  // What mends it may be struck, too.
  const anywhere = possible.filter(({ name, steps }) => steps === undefined && name !== 'cancel');
  for (const { kind } of [...events])
    if (kind.leadsTo !== undefined && random.next() < 0.6) add(pick(anywhere), random.pick(kind.leadsTo));
  const ranged = method === 'replication' && sourceMajor >= 15 && random.next() < 0.5;
  const verify = method === 'replication' && random.next() < 0.5 ? 'full' : 'copied';
  return { seed, sourceMajor, targetMajor, method, ranged, verify, after, events: events.map(killAtRest) };
}

/** While changes stream no worker is at any statement, so it is killed from outside. */
function killAtRest(event: PlannedEvent): PlannedEvent {
  if (event.step !== STREAMING || event.kind.action !== 'kill') return event;
  const kind: EventKind = {
    ...event.kind,
    strike: async ({ world }) => {
      await world.workers.awake()?.kill();
    },
  };
  return { ...event, kind, action: 'hold' };
}

export const describeEvent = ({ kind, step, failpoint }: PlannedEvent): string =>
  step === STREAMING ? `${kind.name} (streaming)` : `${kind.name} (${phaseOf(step)}: ${failpoint})`;
