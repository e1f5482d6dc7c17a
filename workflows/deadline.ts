import {
  ActivityFailure,
  CancelledFailure,
  CancellationScope,
  isCancellation,
  sleep,
  TimeoutFailure,
} from '@temporalio/workflow';

/**
 * Does `work`, and cancels it when `seconds` have passed before it was done. The clock is Temporal's: no worker needs to be
 * there for it to run. A step that is cancelled is waited for, so nothing of it goes on afterwards; where its worker is
 * dead, that is as long as a missing heartbeat takes to be noticed.
 * @throws what `passed` makes when the time was over, given what the step was waiting for, if it says so
 */
export async function within<T>(
  seconds: number,
  summary: string,
  work: () => Promise<T>,
  passed: (waitingFor: string | null) => Error,
): Promise<T> {
  const working = new CancellationScope();
  const timing = new CancellationScope();
  let isOver = false;
  const timer = timing
    .run(() => sleep(seconds * 1000, { summary }))
    .then(() => {
      isOver = true;
      working.cancel();
    })
    .catch((error: unknown) => {
      if (!isCancellation(error)) throw error;
    });
  try {
    return await working.run(work);
  } catch (error) {
    throw isOver && wasCutShort(error) ? passed(waitingForOf(error)) : error;
  } finally {
    timing.cancel();
    await timer;
  }
}

/** A worker that has died answers no cancellation: its heartbeat is missed. */
const wasCutShort = (error: unknown): boolean =>
  isCancellation(error) || (error instanceof ActivityFailure && error.cause instanceof TimeoutFailure);

/** By the last that the step has told about itself. */
function waitingForOf(error: unknown): string | null {
  const cause = error instanceof ActivityFailure ? error.cause : null;
  const told: unknown =
    cause instanceof CancelledFailure
      ? cause.details[0]
      : cause instanceof TimeoutFailure
        ? cause.lastHeartbeatDetails
        : null;
  const { waitingFor } = (told ?? {}) as { waitingFor?: unknown };
  return typeof waitingFor === 'string' && waitingFor !== '' ? waitingFor : null;
}
