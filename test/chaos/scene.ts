import { setTimeout as delay } from 'node:timers/promises';
import type { PlannedEvent, RunPlan } from './plan.ts';
import { createRandom } from './random.ts';
import { isBeforeStreaming, STREAMING } from './steps.ts';
import type { Heal } from './strikes.ts';
import type { World } from './world.ts';

/** How an event of the plan went. */
export interface Happened extends PlannedEvent {
  /** ms after the start of the run; null: it did not come to that. */
  struckAt: number | null;
  state: 'armed' | 'striking' | 'lasting' | 'over';
}

/** The events of one run, each of which strikes when a worker comes to its failpoint. */
export interface Storm {
  events: readonly Happened[];
  /** Tells in which phase the migration is. */
  phase(phase: string): void;
  /** Nothing of what was to come before the cutover is still to come, or still lasts. */
  isCalm(): boolean;
  /** Something lasts that is made good again by itself. */
  lasts(): boolean;
  /** Ends what lasts, and lets nothing more happen. */
  end(): Promise<void>;
}

const LOOK_MS = 15;

/** What another event does, such as using up the connections, may be in the way of this one for a while. */
const PERSISTENCE_MS = 20_000;

async function persistently<T>(work: () => Promise<T>): Promise<T> {
  for (const giveUpAt = Date.now() + PERSISTENCE_MS; ; await delay(200)) {
    try {
      return await work();
    } catch (error) {
      if (Date.now() > giveUpAt) throw error;
    }
  }
}

export function startStorm(world: World, plan: RunPlan, database: string, cancel: () => Promise<void>): Storm {
  const began = Date.now();
  const random = createRandom(plan.seed + 1);
  const events: Happened[] = plan.events.map((event) => ({ ...event, struckAt: null, state: 'armed' }));
  const heals = new Map<Happened, Heal>();
  let phase = '';
  let ended = false;
  const { failpoints } = world;
  for (const event of events) if (event.step !== STREAMING) failpoints.arm(event.failpoint, event.action);

  const heal = async (event: Happened): Promise<void> => {
    const work = heals.get(event);
    heals.delete(event);
    await persistently(async () => work?.());
    event.state = 'over';
  };
  const strike = async (event: Happened): Promise<void> => {
    event.struckAt = Date.now() - began;
    event.state = 'striking';
    try {
      const good = await persistently(async () => event.kind.strike?.({ world, database, random, cancel }));
      if (good !== undefined) heals.set(event, good);
    } finally {
      failpoints.release(event.failpoint);
    }
    event.state = 'lasting';
    if (!heals.has(event)) event.state = 'over';
    else void delay(event.lastsMs).then(() => heal(event).catch(() => undefined));
  };
  const hasCome = (event: Happened): boolean =>
    event.step === STREAMING ? phase === STREAMING : failpoints.hasFired(event.failpoint);

  const watch = async (): Promise<void> => {
    while (!ended) {
      // One after the other: two of them may need the same server.
      for (const event of events) if (event.state === 'armed' && hasCome(event)) await strike(event);
      await delay(LOOK_MS);
    }
  };
  const watching = watch();
  watching.catch(() => undefined);
  return {
    events,
    phase: (now) => {
      phase = now;
    },
    isCalm: () =>
      events.every(
        ({ kind, step, state }) =>
          state === 'over' ||
          (state === 'lasting' && kind.hindersNobody === true) ||
          (state === 'armed' && step !== STREAMING && (isBeforeStreaming(step) || phase === STREAMING)),
      ),
    lasts: () =>
      events.some(({ kind, state }) => state === 'striking' || (state === 'lasting' && kind.hindersNobody !== true)),
    end: async () => {
      ended = true;
      try {
        await watching;
      } finally {
        for (const event of events) {
          if (heals.has(event)) await heal(event);
          failpoints.release(event.failpoint);
        }
      }
    },
  };
}
