import { condition, setHandler } from '@temporalio/workflow';
import type { ChildWorkflowHandle } from '@temporalio/workflow';
import type { SignalDefinition, UpdateDefinition } from '@temporalio/common';
import type { StopRequest, Word } from '../src/contract.ts';
import { hasEnded } from '../src/domain/phase.ts';
import type { ClusterStatus } from './cluster-status.ts';
import {
  completeSignal,
  completeUpdate,
  cutoverDecisionSignal,
  cutoverVoteSignal,
  DESCRIPTION,
  fencedSignal,
  fencedUpdate,
  rollbackSignal,
  rollbackUpdate,
  stopReplicationSignal,
  stopReplicationUpdate,
  switchedSignal,
  switchedUpdate,
} from './messages.ts';
import type { migrateDatabase } from './migrate-database.ts';
import { refuse } from './refuse.ts';
import { completeProblem, fenceProblem, rollbackProblem, stopRequestProblem, wordProblem } from './requests.ts';
import type { Plan } from '../src/domain/plan.ts';
import { Round } from './together.ts';

export type Child = ChildWorkflowHandle<typeof migrateDatabase>;

/** How the databases of one migration are told to stop: each when it streams, or several as one. */
export class ClusterStop {
  readonly #status: ClusterStatus;
  readonly #children: ReadonlyMap<string, Child>;
  #plan: Plan | null = null;
  /** The latest is the last. */
  readonly #requests: StopRequest[] = [];
  #round: Round | null = null;

  constructor(status: ClusterStatus, children: ReadonlyMap<string, Child>) {
    this.#status = status;
    this.#children = children;
    setHandler(stopReplicationSignal, (request) => this.#hear(request), { description: DESCRIPTION.stopReplication });
    setHandler(
      stopReplicationUpdate,
      async (request) => {
        await this.#hear(request);
        return status.phases();
      },
      {
        description: DESCRIPTION.stopReplication,
        validator: (request: StopRequest | undefined) => refuse(this.#problem(request)),
      },
    );
    setHandler(cutoverVoteSignal, (vote) => this.#round?.hear(vote), { description: DESCRIPTION.internal });
    this.#passOn('fenced', fencedUpdate, fencedSignal);
    this.#passOn('switched', switchedUpdate, switchedSignal);
    this.#decide('rollback', rollbackUpdate, rollbackSignal, rollbackProblem);
    this.#decide('complete', completeUpdate, completeSignal, completeProblem);
  }

  /** Once the plan is known. */
  begin(plan: Plan): void {
    this.#plan = plan;
  }

  /** What was asked for early, for a child that starts now; null: nothing. */
  orderFor(database: string): StopRequest | null {
    return this.#requests.findLast((request) => concerns(request, database)) ?? null;
  }

  /** A stop that came while the child was being started, with `order` of before. */
  async started(database: string, order: StopRequest | null): Promise<void> {
    const now = this.orderFor(database);
    if (now !== null && now !== order) await this.#tell(database, stopReplicationSignal, now);
  }

  ended(database: string, reason: string): void {
    this.#round?.ended(database, reason);
  }

  #problem(request: StopRequest | undefined): string | null {
    const problem = stopRequestProblem(request, this.#status.databases());
    if (problem !== null || request === undefined) return problem;
    if (request.together === true) {
      if (this.#plan === null) return 'Which databases there are is not known yet: ask again when validation is over.';
      if (this.#round?.isDecided === false) return 'Databases are being cut over together already.';
      if (this.#status.stoppable(request.databases).length === 0)
        return 'No database is replicated: there is nothing to stop.';
    }
    return this.#plan === null ? null : fenceProblem(this.#plan, request);
  }

  /** Buffered when early: a child that starts later is told in its input. */
  async #hear(request: StopRequest | undefined): Promise<void> {
    if (this.#problem(request) !== null) return;
    if (request?.together === true) {
      await this.#stopTogether(request);
      return;
    }
    const order = request ?? {};
    this.#requests.push(order);
    // Only these: one that was asked for earlier, and put back, is not done because another one is.
    const asked = [...this.#children.keys()].filter((database) => concerns(order, database));
    await Promise.all(asked.map((database) => this.#tell(database, stopReplicationSignal, order)));
  }

  /** All at once, so when the last of them streams. */
  async #stopTogether(request: StopRequest): Promise<void> {
    const members = this.#status.stoppable(request.databases);
    const round = new Round((this.#round?.number ?? 0) + 1, members, (database, decision) => {
      void this.#tell(database, cutoverDecisionSignal, decision);
    });
    this.#round = round;
    const phase = (database: string) => this.#status.phaseOf(database) ?? 'done';
    await condition(() => members.every((database) => phase(database) === 'streaming' || hasEnded(phase(database))));
    await Promise.all(
      members.map((database) => this.#tell(database, stopReplicationSignal, { ...request, round: round.number })),
    );
    for (const database of members.filter((name) => hasEnded(phase(name))))
      round.ended(database, `${database} has ended and can no longer be cut over with the others.`);
  }

  /** To the databases that wait for it. */
  #passOn(name: 'fenced' | 'switched', update: typeof fencedUpdate, signal: typeof fencedSignal): void {
    setHandler(signal, (word) => this.#say(name, signal, word).then(() => undefined), {
      description: DESCRIPTION[name],
    });
    setHandler(update, (word) => this.#say(name, signal, word), {
      description: DESCRIPTION[name],
      validator: (word: Word) =>
        refuse(
          wordProblem(name, word) ??
            (this.#status.waitingFor(name, word.database).length === 0 ? `No database waits for "${name}" now.` : null),
        ),
    });
  }

  async #say(name: 'fenced' | 'switched', signal: typeof fencedSignal, word: Word): Promise<string> {
    // Nobody validates a signal.
    if (wordProblem(name, word) !== null) return '';
    const asked = this.#status.waitingFor(name, word.database);
    await Promise.all(asked.map((database) => this.#tell(database, signal, word)));
    return `${name} was passed on to ${asked.join(', ')}.`;
  }

  /** To the databases whose source follows. */
  #decide<Request extends { database?: string }>(
    name: 'rollback' | 'complete',
    update: UpdateDefinition<string, [request: Request | undefined]>,
    signal: SignalDefinition<[Request]>,
    problemOf: (request: unknown) => string | null,
  ): void {
    const asked = (request: Request | undefined): string[] =>
      this.#status
        .databasesIn('reversing')
        .filter((database) => request?.database === undefined || request.database === database);
    const say = async (request: Request | undefined): Promise<string> => {
      const databases = problemOf(request) === null ? asked(request) : [];
      await Promise.all(databases.map((database) => this.#tell(database, signal, (request ?? {}) as Request)));
      return `${name} was passed on to ${databases.join(', ')}.`;
    };
    setHandler(signal, (request) => say(request).then(() => undefined), { description: DESCRIPTION[name] });
    setHandler(update, say, {
      description: DESCRIPTION[name],
      validator: (request: Request | undefined) =>
        refuse(problemOf(request) ?? (asked(request).length === 0 ? 'No source follows its target now.' : null)),
    });
  }

  /** A child that has closed needs to hear nothing; Temporal reports it as not found. */
  async #tell<Arg>(database: string, signal: SignalDefinition<[Arg]>, message: Arg): Promise<void> {
    await this.#children
      .get(database)
      ?.signal(signal, message)
      .catch(() => undefined);
  }
}

const concerns = ({ databases }: StopRequest, database: string): boolean =>
  databases === undefined || databases.includes(database);
