import { defineSearchAttributeKey } from '@temporalio/common';
import {
  CancellationScope,
  getExternalWorkflowHandle,
  setCurrentDetails,
  upsertSearchAttributes,
  workflowInfo,
} from '@temporalio/workflow';
import type { ResolveAction } from '../src/contract.ts';
import { SEARCH_ATTRIBUTE } from '../src/contract.ts';
import { LIMITS } from '../src/domain/limits.ts';
import type { Measurement, Migration } from '../src/domain/migration.ts';
import { hasEnded } from '../src/domain/phase.ts';
import type { Phase } from '../src/domain/phase.ts';
import type { DatabaseProgress } from '../src/domain/progress.ts';
import type { Condition } from '../src/domain/readiness.ts';
import { isOk } from '../src/domain/readiness.ts';
import { databaseDetails } from './details.ts';
import { databaseProgressSignal } from './messages.ts';

/** What a run hands to the next one when its history has become long. */
export interface CarriedStatus {
  phase: Phase;
  seconds: Partial<Record<Phase, number>>;
  measured: Measurement | null;
  newsToParent: number;
  generations: number;
  answersHeard: number;
}

/**
 * Where one database's migration stands, and everybody who is told: the query, the search attributes, the Web UI's
 * current details, and the parent, which cannot query its children.
 */
export class DatabaseStatus {
  readonly #m: Migration;
  readonly #searchAttributes: boolean;
  readonly #reportEveryMs: number;
  readonly #seconds: Partial<Record<Phase, number>>;
  #phase: Phase = 'preparing';
  #phaseSince = Date.now();
  #parked: string | null = null;
  #answers: ResolveAction[] = [];
  #waitsFor: DatabaseProgress['waitsFor'] = null;
  #asked: string | null = null;
  #problem: string | null = null;
  #message = '';
  #readiness: Condition[] | null = null;
  #measured: Measurement | null;
  #toldParent = 0;
  #toldSearch = '';
  #newsToParent: number;
  #generations: number;
  #answersHeard: number;

  constructor(
    m: Migration,
    options: { searchAttributes: boolean; reportEveryMs: number },
    carried: CarriedStatus | null,
  ) {
    this.#m = m;
    this.#seconds = { ...carried?.seconds };
    this.#measured = carried?.measured ?? null;
    this.#newsToParent = carried?.newsToParent ?? 0;
    this.#generations = carried?.generations ?? 0;
    this.#answersHeard = carried?.answersHeard ?? 0;
    if (carried !== null) this.#phase = carried.phase;
    this.#searchAttributes = options.searchAttributes;
    this.#reportEveryMs = options.reportEveryMs;
    if (this.#searchAttributes)
      upsertSearchAttributes([
        {
          key: defineSearchAttributeKey(SEARCH_ATTRIBUTE.cluster, 'KEYWORD'),
          value: clusterOf(m.workflowId, m.database),
        },
        { key: defineSearchAttributeKey(SEARCH_ATTRIBUTE.database, 'KEYWORD'), value: m.database },
      ]);
  }

  get phase(): Phase {
    return this.#phase;
  }

  /** How many snapshots the rows were copied under so far; more than one when one was lost. */
  get generations(): number {
    return this.#generations;
  }

  countGeneration(): void {
    this.#generations += 1;
  }

  get measured(): Measurement | null {
    return this.#measured;
  }

  /** Seconds spent in each phase so far. */
  seconds(): Partial<Record<Phase, number>> {
    this.#countSeconds();
    return { ...this.#seconds };
  }

  carry(): CarriedStatus {
    return {
      phase: this.#phase,
      seconds: this.seconds(),
      measured: this.#measured,
      newsToParent: this.#newsToParent,
      generations: this.#generations,
      answersHeard: this.#answersHeard,
    };
  }

  enter(phase: Phase, message: string): void {
    this.#countSeconds();
    this.#phase = phase;
    this.#message = message;
    if (phase !== 'streaming') this.#readiness = null;
    // What was measured of a stream says nothing once it has ended, and nothing of the one back that may follow.
    if (phase === 'finishing' && this.#measured !== null)
      this.#measured = { ...this.#measured, lagBytes: null, retainedBytes: null };
    this.#tell(true);
  }

  /** Temporal does not pass on what a cancelled workflow leaves, so the parent is told, and has heard it on return. */
  async enterCancelled(message: string): Promise<void> {
    this.enter('cancelled', message);
    await CancellationScope.nonCancellable(() => this.#tellParent());
  }

  /** The parent has passed an answer on. Counted before it is obeyed, so that all news from then on has it. */
  hearAnswer(): void {
    this.#answersHeard += 1;
  }

  /** A sentence while the migration waits for a person; null when it goes on. */
  park(sentence: string | null, answers: ResolveAction[]): void {
    this.#parked = sentence;
    this.#answers = answers;
    this.#tell(true);
  }

  /** While somebody outside has to do something and say so; `sentence` tells what. */
  waitFor(name: DatabaseProgress['waitsFor'], sentence: string | null): void {
    this.#waitsFor = name;
    this.#asked = sentence;
    this.#tell(true);
  }

  /** `null`: the measurement itself failed, and `problem` says why. */
  measure(measured: Measurement | null, problem: string | null): void {
    const news = problem !== this.#problem;
    if (measured !== null) this.#measured = { ...this.#measured, ...measured };
    this.#problem = problem;
    // While it streams for weeks the parent's history must stay small; before, measurements become rare by themselves.
    const every = this.#phase === 'streaming' ? this.#reportEveryMs : LIMITS.reportCopyMs;
    this.#tell(news || Date.now() - this.#toldParent >= every);
  }

  /** Every row is there. The last measurement is older than that, and knows less than this plan if it is older still. */
  copiedAll(planned: { tables: number; bytes: number }): void {
    const [tables, bytes] = [this.#measured?.tables?.total ?? 0, this.#measured?.bytes?.total ?? 0];
    const all = (total: number) => ({ copied: total, total });
    this.#measured = {
      ...(this.#measured ?? { lagBytes: null, retainedBytes: null, problem: null }),
      tables: all(Math.max(tables, planned.tables)),
      bytes: all(Math.max(bytes, planned.bytes)),
    };
  }

  /** What a cutover needs, as just looked at. The parent hears when other things are missing than before. */
  assess(conditions: Condition[]): void {
    const missing = (all: Condition[] | null) => all?.filter((condition) => !isOk(condition)).map(({ name }) => name);
    const news = missing(conditions)?.join() !== missing(this.#readiness)?.join();
    this.#readiness = conditions;
    this.#tell(news);
  }

  progress(): DatabaseProgress {
    const measured = this.#measured;
    return {
      database: this.#m.database,
      method: this.#m.method,
      phase: this.#phase,
      attention: this.#parked ?? this.#asked ?? this.#problem,
      answers: this.#answers,
      waitsFor: this.#waitsFor,
      generations: this.#generations,
      lagBytes: measured?.lagBytes ?? null,
      retainedBytes: measured?.retainedBytes ?? null,
      readiness: this.#readiness,
      tables: measured?.tables ?? { copied: 0, total: 0 },
      bytes: measured?.bytes ?? { copied: 0, total: 0 },
      message: this.#message,
    };
  }

  #countSeconds(): void {
    if (hasEnded(this.#phase)) return;
    const now = Date.now();
    const before = this.#seconds[this.#phase] ?? 0;
    this.#seconds[this.#phase] = Math.round((before + (now - this.#phaseSince) / 1000) * 10) / 10;
    this.#phaseSince = now;
  }

  #tell(parentToo: boolean): void {
    const progress = this.progress();
    setCurrentDetails(databaseDetails(progress, this.#measured));
    this.#tellSearch(progress);
    // The parent hears of the end by the end itself, which has a report, but where it is a cancellation.
    if (parentToo && !hasEnded(this.#phase)) void this.#tellParent();
  }

  async #tellParent(): Promise<void> {
    const parent = workflowInfo().parent;
    if (parent === undefined) return;
    this.#toldParent = Date.now();
    // By the clock, so that the news of a run that follows a reset come after those of the run before it.
    this.#newsToParent = Math.max(this.#newsToParent + 1, Date.now());
    const progress = this.progress();
    // Without its run id, which a reset of the parent changes. A parent that has ended needs no news.
    const readiness = progress.readiness?.filter((condition) => !isOk(condition)) ?? null;
    await getExternalWorkflowHandle(parent.workflowId)
      .signal(databaseProgressSignal, {
        number: this.#newsToParent,
        progress: { ...progress, readiness },
        answersHeard: this.#answersHeard,
      })
      .catch(() => undefined);
  }

  #tellSearch({ phase, attention }: DatabaseProgress): void {
    const value = attention === null ? null : this.#parked === null ? 'problem' : 'parked';
    const told = `${phase} ${value}`;
    if (!this.#searchAttributes || told === this.#toldSearch) return;
    this.#toldSearch = told;
    upsertSearchAttributes([
      { key: defineSearchAttributeKey(SEARCH_ATTRIBUTE.phase, 'KEYWORD'), value: phase },
      { key: defineSearchAttributeKey(SEARCH_ATTRIBUTE.attention, 'KEYWORD'), value },
    ]);
  }
}

const clusterOf = (workflowId: string, database: string): string => workflowId.slice(0, -database.length - 1);

/** How often a streaming child tells its parent: rarer with many databases, since their parent has one history. */
export const reportEveryMs = (databases: number): number =>
  Math.max(LIMITS.measureMostMs, databases * LIMITS.reportToParentMs);
