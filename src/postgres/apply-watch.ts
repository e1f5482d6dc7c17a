import { LIMITS } from '../domain/limits.ts';

export interface ApplySample {
  /** When it was taken, in ms of any clock that only goes forward. */
  at: number;
  /** As the server counts them; null before 15. */
  errors: number | null;
  /** Some apply worker is not there. */
  idle: boolean;
  /** How far the target has confirmed. */
  confirmed: string | null;
}

/**
 * Tells a change that cannot be applied from errors that pass: a broken connection counts as an apply error too, so
 * errors count only while nothing is confirmed between them. Answers with a sentence when a person is needed.
 */
export function watchApply(): (sample: ApplySample) => string | null {
  let since: ApplySample | null = null;
  let idleSince: number | null = null;
  return (sample) => {
    if (since === null || sample.confirmed !== since.confirmed) {
      since = sample;
      idleSince = null;
    }
    if (sample.errors !== null && since.errors !== null) {
      const failed = sample.errors - since.errors;
      return failed < LIMITS.applyErrorsToFail ? null : `its apply worker failed ${failed} times in a row`;
    }
    // A failing worker is there for moments only, so seeing it once proves nothing.
    if (sample.idle) idleSince ??= sample.at;
    if (!sample.idle || idleSince === null || sample.at - idleSince < LIMITS.applyIdleMs) return null;
    return `its apply worker has not kept running for ${Math.round((sample.at - idleSince) / 1000)} seconds`;
  };
}
