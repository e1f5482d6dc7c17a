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
  let before: ApplySample | null = null;
  let idleMs = 0;
  return (sample) => {
    if (since === null || sample.confirmed !== since.confirmed) {
      since = sample;
      idleMs = 0;
    }
    if (sample.errors !== null && since.errors !== null) {
      const failed = sample.errors - since.errors;
      return failed < LIMITS.applyErrorsToFail ? null : `its apply worker failed ${failed} times in a row`;
    }
    // A failing worker is there for moments, or as long as it takes to the change that fails, and is then away until
    // its restart. So seeing it proves nothing: the time without it is added up.
    if (before?.idle === true && sample.idle) idleMs += sample.at - before.at;
    before = sample;
    return idleMs < LIMITS.applyIdleMs
      ? null
      : `its apply worker was away for ${Math.round(idleMs / 1000)} seconds in all`;
  };
}
