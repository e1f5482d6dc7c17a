import type { CutoverDecision, CutoverVote } from './messages.ts';

/**
 * Databases that are cut over as one, as their parent sees it: a two-phase commit. No fence goes up before all are ready
 * for it; no target is opened before all are drained; one that cannot puts all back. After its vote `drained` a child
 * waits for the decision, whatever its deadline says: only so can it not be opened alone.
 */
export class Round {
  readonly number: number;
  readonly #tell: (database: string, decision: CutoverDecision) => void;
  readonly #members: ReadonlySet<string>;
  readonly #ready = new Set<string>();
  readonly #drained = new Set<string>();
  #isDecided = false;

  constructor(number: number, members: readonly string[], tell: (database: string, decision: CutoverDecision) => void) {
    this.number = number;
    this.#members = new Set(members);
    this.#tell = tell;
  }

  /** Whether its outcome is known: then another may begin. */
  get isDecided(): boolean {
    return this.#isDecided;
  }

  hear({ database, round, vote, reason }: CutoverVote): void {
    if (round !== this.number || this.#isDecided || !this.#members.has(database)) return;
    if (vote === 'put-back') {
      this.#decide('put-back', reason);
      return;
    }
    const votes = vote === 'ready' ? this.#ready : this.#drained;
    votes.add(database);
    if (votes.size === this.#members.size) this.#decide(vote === 'ready' ? 'fence' : 'open', '');
  }

  /** A member that has ended, or lives no more, will not vote. */
  ended(database: string, reason: string): void {
    this.hear({ database, round: this.number, vote: 'put-back', reason });
  }

  #decide(decision: CutoverDecision['decision'], reason: string): void {
    this.#isDecided = decision !== 'fence';
    for (const database of this.#members) this.#tell(database, { round: this.number, decision, reason });
  }
}
