import { CancellationScope, isCancellation, sleep } from '@temporalio/workflow';

/**
 * Does `work`, and cancels it when `seconds` have passed before it was done. The clock is Temporal's: no worker needs to be
 * there for it to run. A step that is cancelled is waited for, so nothing of it goes on afterwards; where its worker is
 * dead, that is as long as a missing heartbeat takes to be noticed.
 * @throws what `passed` makes, when the time was over
 */
export async function within<T>(
  seconds: number,
  summary: string,
  work: () => Promise<T>,
  passed: () => Error,
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
    throw isOver && isCancellation(error) ? passed() : error;
  } finally {
    timing.cancel();
    await timer;
  }
}
