import { condition, setHandler } from '@temporalio/workflow';
import type { Word } from '../src/contract.ts';
import type { DatabaseStatus } from './database-status.ts';
import { DESCRIPTION, fencedSignal, fencedUpdate, switchedSignal, switchedUpdate } from './messages.ts';
import { refuse } from './refuse.ts';
import { wordProblem } from './requests.ts';

const MESSAGES = {
  fenced: { update: fencedUpdate, signal: fencedSignal },
  switched: { update: switchedUpdate, signal: switchedSignal },
} as const;

/** Waits for what others do, a proxy's tooling or a person: they say so with an update, and who they are. */
export class Words {
  readonly #status: DatabaseStatus;
  #waitsFor: keyof typeof MESSAGES | null = null;
  #by: string | null = null;

  constructor(database: string, status: DatabaseStatus) {
    this.#status = status;
    for (const name of ['fenced', 'switched'] as const) {
      const hear = ({ by }: Word): void => {
        if (this.#waitsFor === name) this.#by ??= by;
      };
      const { update, signal } = MESSAGES[name];
      // Nobody validates a signal.
      setHandler(signal, (word) => (wordProblem(name, word) === null ? hear(word) : undefined), {
        description: DESCRIPTION.internal,
      });
      setHandler(
        update,
        (word) => {
          hear(word);
          return `${database}: ${name} by ${word.by}.`;
        },
        {
          description: DESCRIPTION[name],
          validator: (word: Word) =>
            refuse(
              wordProblem(name, word) ??
                (this.#waitsFor === name ? null : `Database "${database}" does not wait for "${name}" now.`),
            ),
        },
      );
    }
  }

  /** Returns who has said so. `sentence`: what to do meanwhile, for a person. */
  async waitFor(name: keyof typeof MESSAGES, sentence: string): Promise<string> {
    this.#by = null;
    this.#waitsFor = name;
    this.#status.waitFor(name, sentence);
    try {
      await condition(() => this.#by !== null);
      return this.#by ?? '';
    } finally {
      this.#waitsFor = null;
      this.#status.waitFor(null, null);
    }
  }
}
