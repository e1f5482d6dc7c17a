import { CancellationScope, condition, isCancellation, setHandler } from '@temporalio/workflow';
import type { Activities } from '../activities/index.ts';
import type { ResolveRequest } from '../src/contract.ts';
import { asOwnFailure, readFailure } from '../src/domain/application-failure.ts';
import { endsAtOnce } from '../src/domain/failure.ts';
import type { Migration } from '../src/domain/migration.ts';
import { Agreement } from './agreement.ts';
import { Compensations } from './compensation.ts';
import type { Moved } from './migrate-database.ts';
import { Decisions } from './decisions.ts';
import type { CarriedStatus } from './database-status.ts';
import { DatabaseStatus } from './database-status.ts';
import {
  databaseProgressQuery,
  DESCRIPTION,
  rehearseUpdate,
  resolveSignal,
  resolveUpdate,
  stopReplicationSignal,
  stopReplicationUpdate,
} from './messages.ts';
import type { StopOrder } from './messages.ts';
import { Parking } from './parking.ts';
import { refuse } from './refuse.ts';
import { fenceProblem, resolveRequestProblem, stopRequestProblem } from './requests.ts';
import { step } from './step.ts';
import { Words } from './words.ts';

/** Steps that an operator may leave out; a copy or a drain is never among them. */
const SKIPPABLE: readonly (keyof Activities)[] = ['refreshMaterializedViews'];

/** What a streaming run hands to the next one when its history has become long. */
export interface CarriedRun {
  status: CarriedStatus;
  warnings: string[];
  /** What has been done, when it is the source that follows by now. */
  moved?: Moved;
}

/** One run of `migrateDatabase`: what its steps share, and the messages that it answers. */
export class DatabaseRun {
  readonly m: Migration;
  readonly status: DatabaseStatus;
  readonly compensations = new Compensations();
  /** What an end leaves, as a sentence; null: everything undone. Goes with the compensations: ending.ts. */
  endsWith: string | null = null;
  readonly warnings: string[];
  readonly #parking: Parking;
  readonly #agreement: Agreement;
  readonly #words: Words;
  readonly decisions: Decisions;
  #stop: StopOrder | null = null;

  constructor(
    m: Migration,
    options: { searchAttributes: boolean; reportEveryMs: number; stopRequested: StopOrder | null },
    carried: CarriedRun | null,
  ) {
    this.m = m;
    this.warnings = [...(carried?.warnings ?? [])];
    this.status = new DatabaseStatus(m, options, carried?.status ?? null);
    this.#parking = new Parking((sentence, answers) => this.status.park(sentence, answers));
    this.#agreement = new Agreement(m.database);
    this.#words = new Words(m.database, this.status);
    this.decisions = new Decisions(m.database, () => this.status.phase === 'reversing');
    this.#stop = options.stopRequested;
    this.#answerMessages();
  }

  get stopRequested(): StopOrder | null {
    return this.#stop;
  }

  /** Whether one is asked for, and its time has come. */
  stopIsDue(): boolean {
    return this.#stop !== null && msUntil(this.#stop) <= 0;
  }

  /** … or something else. */
  async untilStopIsDue(other: () => boolean): Promise<void> {
    while (!this.stopIsDue() && !other()) {
      const stop = this.#stop;
      const changed = () => this.#stop !== stop || other();
      if (stop === null) await condition(changed);
      else {
        this.status.enter('streaming', `Every change arrives on the target. It is cut over at ${stop.notBefore}.`);
        await condition(changed, msUntil(stop));
      }
    }
  }

  /** Where several databases are cut over together: waits until all have come so far. */
  async agree(vote: 'ready' | 'drained'): Promise<void> {
    const round = this.#stop?.round;
    if (round === undefined) return;
    this.status.enter('stopping', `Is ${vote}, and waits for the databases that are cut over with it.`);
    await this.#agreement.reach(round, vote);
  }

  /** … and where this one cannot, puts the others back. Before `forgetStop`. */
  async disagree(reason: string): Promise<void> {
    const round = this.#stop?.round;
    if (round !== undefined) await this.#agreement.refuse(round, reason);
  }

  /** Waits until somebody says that they have done it, and returns who. */
  waitForWord(name: 'fenced' | 'switched', sentence: string): Promise<string> {
    return this.#words.waitFor(name, sentence);
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
    const stop = (order: StopOrder | undefined) => {
      const { round, ...request } = order ?? {};
      // Nobody validates a signal; one that makes no sense does not cut over.
      if (stopRequestProblem(request, null) !== null) return;
      // What was asked for later counts, until it is being done.
      if (this.status.phase !== 'stopping') this.#stop = { ...request, ...(round !== undefined && { round }) };
    };
    const knowsStop = (request: StopOrder | undefined): string | null => {
      if (this.m.method !== 'replication')
        return `Database "${this.m.database}" is not replicated: there is nothing to stop.`;
      if (request?.together === true)
        return 'Send a stop of several databases together to the workflow of all of them.';
      return stopRequestProblem(request, [this.m.database]) ?? fenceProblem(this.m.plan, request ?? {});
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
        validator: (request: StopOrder | undefined) => refuse(knowsStop(request)),
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

/** 0 or less: now. */
const msUntil = ({ notBefore }: StopOrder): number =>
  notBefore === undefined ? 0 : Date.parse(notBefore) - Date.now();
