import { condition } from '@temporalio/workflow';
import type { ResolveAction } from '../src/contract.ts';
import type { ReadFailure } from '../src/domain/application-failure.ts';
import { MigrationError } from '../src/domain/failure.ts';
import { toApplicationFailure } from '../src/domain/application-failure.ts';

interface Parked {
  sentence: string;
  skippable: boolean;
  action: ResolveAction | null;
}

/**
 * Steps that failed in a way that waiting cannot mend, each waiting for an operator's `resolve`. Replication, snapshot
 * and ledger stay as they are meanwhile.
 */
export class Parking {
  readonly #parked: Parked[] = [];
  readonly #changed: (sentence: string | null, answers: ResolveAction[]) => void;

  constructor(changed: (sentence: string | null, answers: ResolveAction[]) => void) {
    this.#changed = changed;
  }

  /** Waits for `resolve`. @throws ApplicationFailure `Aborted`, with the reason for which the step was parked */
  async wait(what: string, failure: ReadFailure, skippable: boolean): Promise<'retry' | 'skip'> {
    const actions = skippable ? 'retry, skip or abort' : 'retry or abort';
    const parked: Parked = {
      sentence: `${what}: ${failure.message} (resolve with ${actions})`,
      skippable,
      action: null,
    };
    this.#parked.push(parked);
    this.#tell();
    try {
      await condition(() => parked.action !== null);
    } finally {
      this.#parked.splice(this.#parked.indexOf(parked), 1);
      this.#tell();
    }
    if (parked.action === 'abort')
      throw toApplicationFailure(
        new MigrationError('Aborted', `Aborted by an operator. It was parked at ${parked.sentence}`),
      );
    return parked.action === 'skip' ? 'skip' : 'retry';
  }

  #answers(): ResolveAction[] {
    if (this.#parked.length === 0) return [];
    return this.#parked.every((parked) => parked.skippable) ? ['retry', 'skip', 'abort'] : ['retry', 'abort'];
  }

  /** Why `action` cannot be taken now, as a sentence; null when it can. */
  refuses(action: ResolveAction): string | null {
    const answers = this.#answers();
    if (answers.length === 0) return 'This migration is not parked: there is nothing to resolve.';
    if (answers.includes(action)) return null;
    return 'The step at which this migration is parked cannot be skipped; answer with retry or abort.';
  }

  /** Answers everything that is parked now. An answer to nothing is ignored: it came twice. */
  resolve(action: ResolveAction): string {
    if (this.refuses(action) !== null) return this.refuses(action) ?? '';
    for (const parked of this.#parked) parked.action = action;
    return `${action}: ${this.#parked.map((parked) => parked.sentence).join('; ')}`;
  }

  #tell(): void {
    const sentence = this.#parked.map((parked) => parked.sentence).join(' ');
    this.#changed(sentence === '' ? null : sentence, this.#answers());
  }
}
