import { CancellationScope } from '@temporalio/workflow';
import { readFailure } from '../src/domain/application-failure.ts';

/**
 * What must be put back if the rest does not succeed. Registered *before* the step that it undoes, because a step that
 * failed may have done its work; so each must be idempotent and find out by itself whether there is anything to do.
 */
export class Compensations {
  readonly #entries: { what: string; undo: () => Promise<unknown> }[] = [];

  add(what: string, undo: () => Promise<unknown>): void {
    this.#entries.push({ what, undo });
  }

  /** The point of no return: what was done stays. */
  clear(): void {
    this.#entries.length = 0;
  }

  /** Runs all, the latest first, each whatever happened to the others. Returns what could not be undone, as sentences. */
  async run(): Promise<string[]> {
    return CancellationScope.nonCancellable(async () => {
      const failures: string[] = [];
      for (const { what, undo } of this.#entries.reverse()) {
        await undo().catch((error: unknown) => failures.push(`Could not ${what}: ${readFailure(error).message}`));
      }
      this.#entries.length = 0;
      return failures;
    });
  }
}
