import type { Client, WorkflowHandle } from '@temporalio/client';
import { WorkflowNotFoundError } from '@temporalio/common';
import { setTimeout as delay } from 'node:timers/promises';
import { childWorkflowId, MESSAGE } from '../contract.ts';
import { hasEnded } from '../domain/phase.ts';
import type { ClusterProgress } from '../domain/progress.ts';
import { LIMITS } from '../domain/limits.ts';
import { GRPC, grpcCode, shortReason } from '../temporal/connection.ts';
import type { Outcome } from './outcome.ts';
import { outcomeOf } from './outcome.ts';
import { pendingSteps } from './pending-steps.ts';
import type { LiveDatabase, PendingStep } from './view/live.ts';
import { copyLanes, liveOf, WHOLE, withLive } from './view/live.ts';
import type { ProgressOutput } from './view/output.ts';
import { RateMeter } from './view/rate.ts';

export type Followed =
  { ended: Outcome; progress: ClusterProgress | null } | { settled: ClusterProgress } | 'interrupted';

export interface FollowOptions {
  output: ProgressOutput;
  signal: AbortSignal;
  /** Whether there is nothing more to wait for although the migration has not ended. */
  settled: (progress: ClusterProgress) => boolean;
}

/** Shows a migration until it ends, is settled, or `signal` is aborted. A server that is away is waited for. */
export async function follow(client: Client, handle: WorkflowHandle, options: FollowOptions): Promise<Followed> {
  const { output, settled } = options;
  const over = new AbortController();
  const signal = AbortSignal.any([options.signal, over.signal]);
  const end: { outcome?: Outcome; error?: Error } = {};
  const ending = endOf(handle, signal).then(
    (outcome) => (end.outcome = outcome),
    (error: unknown) => (end.error = error instanceof Error ? error : new Error(String(error))),
  );
  const steps = new StepWatch(client);
  let progress: ClusterProgress | null = null;
  let newsAt = new Date();
  try {
    while (!signal.aborted) {
      let problem: unknown;
      try {
        const deadline = Date.now() + LIMITS.temporalConnectMs;
        progress = await client.withDeadline(deadline, async () =>
          steps.look(await handle.query<ClusterProgress>(MESSAGE.progress), progress),
        );
        newsAt = new Date();
      } catch (error) {
        problem = error;
      }
      // Whoever interrupts has the terminal from then on.
      if (options.signal.aborted) break;
      const silentMs = Date.now() - newsAt.getTime();
      if (progress !== null && problem === undefined) output.show(progress, steps.live);
      else if (end.outcome === undefined && silentMs > LIMITS.followPatienceMs) output.away(reasonOf(problem), newsAt);
      if (end.outcome !== undefined) return { ended: end.outcome, progress };
      if (end.error !== undefined) throw end.error;
      if (problem === undefined && progress !== null && settled(progress)) return { settled: progress };
      await Promise.race([ending, delay(LIMITS.followMs, undefined, { signal }).catch(() => undefined)]);
    }
    return 'interrupted';
  } finally {
    over.abort();
  }
}

/** Asks again as long as it is the server that does not answer. */
async function endOf(handle: WorkflowHandle, signal: AbortSignal): Promise<Outcome> {
  for (;;) {
    try {
      return await outcomeOf(handle);
    } catch (error) {
      if (isFinal(error) || signal.aborted) throw error;
      await delay(LIMITS.followMs, undefined, { signal });
    }
  }
}

/** The client's own message only says what it was doing. */
const reasonOf = (problem: unknown): string =>
  shortReason(problem instanceof Error && problem.cause instanceof Error ? problem.cause : problem);

/** Asking again would not help. */
const isFinal = (error: unknown): boolean => {
  if (error instanceof WorkflowNotFoundError) return true;
  const code = grpcCode(error) ?? grpcCode(error instanceof Error ? error.cause : undefined);
  return code === GRPC.notFound || code === GRPC.permissionDenied || code === GRPC.unauthenticated;
};

/** The pending steps of the databases that move: a few databases at a time, in turn. */
class StepWatch {
  readonly #client: Client;
  readonly #steps = new Map<string, PendingStep[]>();
  readonly #meters = new Map<string, RateMeter>();
  #live = new Map<string, LiveDatabase>();
  #turn = 0;

  constructor(client: Client) {
    this.#client = client;
  }

  get live(): ReadonlyMap<string, LiveDatabase> {
    return this.#live;
  }

  /** The same progress, with what the steps tell beyond it. */
  async look(progress: ClusterProgress, before: ClusterProgress | null): Promise<ClusterProgress> {
    const databases = progress.databases.filter(({ phase }) => phase !== 'streaming' && !hasEnded(phase));
    const moving = [
      // It has steps of its own only before the databases have theirs.
      ...(progress.phase === 'validating' || progress.phase === 'preparing' ? [WHOLE] : []),
      ...databases.map(({ database }) => database),
    ];
    for (const database of this.#steps.keys()) if (!moving.includes(database)) this.#steps.delete(database);
    const start = moving.length > LIMITS.followDatabases ? this.#turn % moving.length : 0;
    const due = [...moving.slice(start), ...moving.slice(0, start)].slice(0, LIMITS.followDatabases);
    this.#turn = start + due.length;
    await Promise.all(due.map((database) => this.#lookAt(progress.id, database)));
    this.#live = new Map([...this.#live].filter(([database]) => this.#steps.has(database)));
    return withLive(progress, this.#steps, before);
  }

  async #lookAt(id: string, database: string): Promise<void> {
    const steps = await pendingSteps(this.#client, database === WHOLE ? id : childWorkflowId(id, database));
    const meter = this.#meters.get(database) ?? new RateMeter();
    this.#meters.set(database, meter);
    this.#steps.set(database, steps);
    this.#live.set(database, liveOf(steps, meter.add(copyLanes(steps), Date.now())));
  }
}
