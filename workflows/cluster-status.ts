import { defineSearchAttributeKey } from '@temporalio/common';
import { setCurrentDetails, upsertSearchAttributes, workflowInfo } from '@temporalio/workflow';
import { SEARCH_ATTRIBUTE } from '../src/contract.ts';
import type { DatabaseInspection } from '../src/domain/migration.ts';
import type { Phase } from '../src/domain/phase.ts';
import { hasEnded, PHASES, slowestPhase } from '../src/domain/phase.ts';
import type { ClusterProgress, DatabaseProgress } from '../src/domain/progress.ts';
import { clusterDetails } from './details.ts';
import type { DatabaseNews } from './messages.ts';

/** What the children have told, and everybody who is told of it: the query, the search attributes, the Web UI. */
export class ClusterStatus {
  readonly #id = workflowInfo().workflowId;
  readonly #progress = new Map<string, DatabaseProgress>();
  readonly #newsHeard = new Map<string, number>();
  readonly #answersPassed = new Map<string, number>();
  #measuredAt = new Date();
  #endedAs: Phase | null = null;
  #searchAttributes = false;
  #told = '';

  constructor() {
    this.#tell();
  }

  /** Validation is over, and these wait for their turn. */
  begin(databases: readonly DatabaseInspection[], searchAttributes: boolean): void {
    this.#searchAttributes = searchAttributes;
    for (const { database, method, tables, bytes } of databases)
      this.#progress.set(database, {
        database,
        method,
        phase: 'preparing',
        attention: null,
        answers: [],
        waitsFor: null,
        generations: 0,
        lagBytes: null,
        retainedBytes: null,
        readiness: null,
        tables: { copied: 0, total: tables },
        bytes: { copied: 0, total: bytes },
        message: 'Waiting for its turn.',
      });
    if (searchAttributes)
      upsertSearchAttributes([{ key: defineSearchAttributeKey(SEARCH_ATTRIBUTE.cluster, 'KEYWORD'), value: this.#id }]);
    this.#tell();
  }

  /** Null while validation has not found them yet. */
  databases(): string[] | null {
    return this.#progress.size === 0 ? null : [...this.#progress.keys()];
  }

  phases(): Record<string, Phase> {
    return Object.fromEntries([...this.#progress].map(([database, { phase }]) => [database, phase]));
  }

  /** Whether it still takes the room of one that copies: until it streams or has ended. */
  isCopying(database: string): boolean {
    const phase = this.#progress.get(database)?.phase;
    return phase !== undefined && !hasEnded(phase) && PHASES.indexOf(phase) < PHASES.indexOf('streaming');
  }

  /** What waits for an answer; undefined: of any database. */
  parked(database: string | undefined): DatabaseProgress[] {
    return [...this.#progress.values()].filter(
      (progress) => progress.answers.length > 0 && (database === undefined || progress.database === database),
    );
  }

  /** Which wait for that word; undefined: of any database. */
  waitingFor(word: 'fenced' | 'switched', database: string | undefined): string[] {
    return [...this.#progress.values()]
      .filter((progress) => progress.waitsFor === word && (database === undefined || progress.database === database))
      .map((progress) => progress.database);
  }

  /** Of those that are named, or of all: what is replicated and has not ended, so a stop is for it. */
  stoppable(databases: readonly string[] | undefined): string[] {
    return [...this.#progress.values()]
      .filter(({ database, method, phase }) => {
        const isAsked = databases === undefined || databases.includes(database);
        return isAsked && method === 'replication' && !hasEnded(phase);
      })
      .map(({ database }) => database);
  }

  databasesIn(phase: Phase): string[] {
    return [...this.#progress.values()].filter((progress) => progress.phase === phase).map(({ database }) => database);
  }

  phaseOf(database: string): Phase | undefined {
    return this.#progress.get(database)?.phase;
  }

  /** An answer is passed on: until the child has heard it and tells more, nothing is left to answer. */
  answered(database: string): void {
    this.#answersPassed.set(database, (this.#answersPassed.get(database) ?? 0) + 1);
    const known = this.#progress.get(database);
    if (known !== undefined) this.#progress.set(database, { ...known, attention: null, answers: [] });
    this.#tell();
  }

  hear({ number, progress: told, answersHeard }: DatabaseNews): void {
    const isAnswered = answersHeard < (this.#answersPassed.get(told.database) ?? 0);
    const progress = isAnswered ? { ...told, attention: null, answers: [] } : told;
    const known = this.#progress.get(progress.database);
    const isOld = number <= (this.#newsHeard.get(progress.database) ?? 0);
    if (known === undefined || hasEnded(known.phase) || isOld) return;
    this.#newsHeard.set(progress.database, number);
    this.#progress.set(
      progress.database,
      progress.tables.total === 0 ? { ...progress, tables: known.tables, bytes: known.bytes } : progress,
    );
    this.#measuredAt = new Date();
    this.#tell();
  }

  /** What a cancelled database leaves. Once its target serves it says so itself. */
  cancelledAs(database: string): string {
    const { phase, message } = this.#progress.get(database) ?? { phase: 'validating', message: '' };
    if (phase === 'cancelled') return message;
    const mayHaveMoved = ['finishing', 'reversing', 'rolling-back'].includes(phase);
    return mayHaveMoved ? 'Its own workflow says who serves.' : 'The source is as it was.';
  }

  databaseEnded(database: string, phase: Phase, message: string): void {
    const known = this.#progress.get(database);
    if (known !== undefined)
      this.#progress.set(database, {
        ...known,
        ...{
          phase,
          message,
          attention: null,
          answers: [],
          waitsFor: null,
          lagBytes: null,
          retainedBytes: null,
          readiness: null,
        },
      });
    this.#measuredAt = new Date();
    this.#tell();
  }

  /** When it ends in another way than with a report. */
  ended(phase: Phase): void {
    this.#endedAs = phase;
    this.#tell();
  }

  progress(): ClusterProgress {
    const databases = [...this.#progress.values()];
    const attention = databases.flatMap((d) => (d.attention === null ? [] : [named(d.database, d.attention)]));
    return {
      id: this.#id,
      phase: this.#endedAs ?? slowestPhase(databases.map(({ phase }) => phase)),
      attention: attention.length === 0 ? null : attention.join(' '),
      measuredAt: this.#measuredAt.toISOString(),
      databases,
    };
  }

  #tell(): void {
    const progress = this.progress();
    setCurrentDetails(clusterDetails(progress));
    const told = `${progress.phase} ${progress.attention !== null}`;
    if (!this.#searchAttributes || told === this.#told) return;
    this.#told = told;
    upsertSearchAttributes([
      { key: defineSearchAttributeKey(SEARCH_ATTRIBUTE.phase, 'KEYWORD'), value: progress.phase },
      {
        key: defineSearchAttributeKey(SEARCH_ATTRIBUTE.attention, 'KEYWORD'),
        value: progress.attention === null ? null : 'parked',
      },
    ]);
  }
}

/** A step's summary begins with its database already. */
const named = (database: string, sentence: string): string =>
  sentence.startsWith(`${database}: `) ? sentence : `${database}: ${sentence}`;
