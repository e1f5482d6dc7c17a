import { CancellationScope, isCancellation, setHandler } from '@temporalio/workflow';
import type { Activities } from '../activities/index.ts';
import type { ResolveRequest, StopRequest } from '../src/contract.ts';
import { asOwnFailure, readFailure, toApplicationFailure } from '../src/domain/application-failure.ts';
import { endsAtOnce, MigrationError } from '../src/domain/failure.ts';
import type { Migration } from '../src/domain/migration.ts';
import { Compensations } from './compensation.ts';
import type { CarriedStatus } from './database-status.ts';
import { DatabaseStatus } from './database-status.ts';
import {
  databaseProgressQuery,
  DESCRIPTION,
  rehearseUpdate,
  resolveRequestProblem,
  resolveSignal,
  resolveUpdate,
  stopReplicationSignal,
  stopReplicationUpdate,
  stopRequestProblem,
} from './messages.ts';
import { Parking } from './parking.ts';
import { step } from './step.ts';

/** Steps that an operator may leave out; a copy or a drain is never among them. */
const SKIPPABLE: readonly (keyof Activities)[] = ['refreshMaterializedViews'];

/** What a streaming run hands to the next one when its history has become long. */
export interface CarriedRun {
  status: CarriedStatus;
  warnings: string[];
}

/** One run of `migrateDatabase`: what its steps share, and the messages that it answers. */
export class DatabaseRun {
  readonly m: Migration;
  readonly status: DatabaseStatus;
  readonly compensations = new Compensations();
  readonly warnings: string[];
  readonly #parking: Parking;
  #stop: StopRequest | null = null;

  constructor(
    m: Migration,
    options: { searchAttributes: boolean; reportEveryMs: number; stopRequested: StopRequest | null },
    carried: CarriedRun | null,
  ) {
    this.m = m;
    this.warnings = [...(carried?.warnings ?? [])];
    this.status = new DatabaseStatus(m, options, carried?.status ?? null);
    this.#parking = new Parking((sentence, answers) => this.status.park(sentence, answers));
    this.#stop = options.stopRequested;
    this.#answerMessages();
  }

  get stopRequested(): StopRequest | null {
    return this.#stop;
  }

  carry(): CarriedRun {
    return { status: this.status.carry(), warnings: this.warnings };
  }

  /** After a cutover that was put back: the next one needs to be asked for again. */
  forgetStop(): void {
    this.#stop = null;
  }

  /** Runs a step; when it fails for good, parks until `resolve`, or throws, as the plan's `onError` says. */
  async attempt<Name extends keyof Activities>(
    name: Name,
    summary: string,
    ...args: Parameters<Activities[Name]>
  ): Promise<Awaited<ReturnType<Activities[Name]>> | undefined> {
    return this.parkable(summary, SKIPPABLE.includes(name), () => step(name, summary, ...args));
  }

  /** The same for several activities that are one step. `undefined`: skipped. */
  async parkable<T>(what: string, skippable: boolean, work: () => Promise<T>): Promise<T | undefined> {
    for (;;) {
      try {
        return await work();
      } catch (error) {
        if (isCancellation(error)) throw error;
        const failure = readFailure(error);
        if (this.m.plan.onError === 'fail' || endsAtOnce(failure.type)) throw error;
        const action = await this.#parking.wait(what, failure, skippable);
        if (action === 'retry') continue;
        this.warnings.push(`Left out by an operator: ${what}. It had failed: ${failure.message}`);
        return undefined;
      }
    }
  }

  /** Lanes side by side. The first failure is reported when all have come to an end, so that none works beside a retry. */
  async lanes(count: number, what: string, start: (lane: number, summary: string) => Promise<unknown>): Promise<void> {
    await this.parkable(what, false, async () => {
      const lanes = Array.from({ length: count }, (_, lane) => start(lane, `${what}, lane ${lane + 1} of ${count}`));
      const outcomes = await Promise.allSettled(lanes);
      const failed = outcomes.find((outcome) => outcome.status === 'rejected' && !isCancellation(outcome.reason));
      const cancelled = outcomes.find((outcome) => outcome.status === 'rejected');
      const rejected = failed ?? cancelled;
      if (rejected?.status === 'rejected') throw rejected.reason;
    });
  }

  /**
   * Runs `work`, whose end must be the seal, while `keepSnapshot` keeps the holder alive beside it, and releases it after
   * the seal. A lost snapshot ends both.
   */
  async underSnapshot(generation: number, work: () => Promise<void>): Promise<void> {
    const working = new CancellationScope();
    const keeping = new CancellationScope();
    let lost: unknown;
    const what = `${this.m.database}: keep the snapshot on the source until the copy is sealed`;
    const kept = keeping
      .run(() => this.parkable(what, false, () => step('keepSnapshot', what, this.m, generation)))
      .catch((error: unknown) => {
        if (isCancellation(error)) return;
        lost = error;
        working.cancel();
      });
    try {
      await working.run(work);
    } catch (error) {
      keeping.cancel();
      await kept;
      throw lost ?? error;
    }
    await kept;
  }

  #answerMessages(): void {
    const stop = (request: StopRequest | undefined) => {
      // Nobody validates a signal; one that makes no sense does not cut over.
      if (stopRequestProblem(request, null) === null) this.#stop ??= request ?? {};
    };
    const knowsStop = (request: StopRequest | undefined): string | null => {
      if (this.m.method !== 'replication')
        return `Database "${this.m.database}" is not replicated: there is nothing to stop.`;
      return stopRequestProblem(request, [this.m.database]);
    };
    setHandler(stopReplicationSignal, stop, { description: DESCRIPTION.stopReplication });
    setHandler(
      stopReplicationUpdate,
      (request) => {
        stop(request);
        return { [this.m.database]: this.status.phase };
      },
      {
        description: DESCRIPTION.stopReplication,
        validator: (request: StopRequest | undefined) => refuse(knowsStop(request)),
      },
    );
    const answer = (request: ResolveRequest) => {
      this.status.hearAnswer();
      this.#parking.resolve(request.action);
    };
    setHandler(resolveSignal, answer, { description: DESCRIPTION.internal });
    setHandler(resolveUpdate, (request: ResolveRequest) => this.#parking.resolve(request.action), {
      description: DESCRIPTION.resolve,
      validator: (request: ResolveRequest) =>
        refuse(resolveRequestProblem(request) ?? this.#parking.refuses(request.action)),
    });
    setHandler(
      rehearseUpdate,
      () =>
        step('rehearseStop', `${this.m.database}: rehearse the stop`, this.m).catch((error: unknown) => {
          throw asOwnFailure(error);
        }),
      {
        description: DESCRIPTION.rehearse,
        validator: () =>
          refuse(
            this.status.phase === 'streaming'
              ? null
              : `Database "${this.m.database}" is ${this.status.phase}: a stop can be rehearsed while it streams.`,
          ),
      },
    );
    setHandler(databaseProgressQuery, () => this.status.progress(), { description: DESCRIPTION.progress });
  }
}

/** An update that makes no sense is refused before it enters the history. */
export function refuse(problem: string | null): void {
  if (problem !== null) throw toApplicationFailure(new MigrationError('InvalidRequest', problem));
}
