import { CancellationScope, isCancellation, sleep } from '@temporalio/workflow';
import { readFailure, toApplicationFailure } from '../src/domain/application-failure.ts';
import { LIMITS } from '../src/domain/limits.ts';
import { isNearLimit, retainedWalWarning, tooMuchRetainedWal } from '../src/domain/retained-wal.ts';
import type { DatabaseRun } from './database-run.ts';
import { step } from './step.ts';

/** One look; a server that cannot be reached is worth telling, and nothing more: the steps retry by themselves. */
export async function measure(run: DatabaseRun): Promise<void> {
  const { m, status } = run;
  try {
    const measured = await step('measure', `${m.database}: measure progress and lag`, m);
    status.measure(measured, measured.problem ?? retainedWalWarning(m.plan, measured.retainedBytes));
  } catch (error) {
    if (isCancellation(error)) throw error;
    status.measure(null, readFailure(error).message);
  }
}

/**
 * Measures beside the steps, from often to rarely, until `work` is over, also while it is parked; and ends it before the
 * WAL that waits for it fills the source's disk. A cutover is let come to its end: that frees the WAL as well.
 */
export async function measuring<T>(run: DatabaseRun, work: () => Promise<T>): Promise<T> {
  const { m, status } = run;
  const looking = new CancellationScope();
  const working = new CancellationScope();
  let tooMuch: Error | null = null;
  const loop = looking.run(async () => {
    for (let pause: number = LIMITS.measureFirstMs; ; pause = Math.min(pause * 2, LIMITS.measureMostMs)) {
      const isNear = isNearLimit(m.plan, status.measured?.retainedBytes ?? null);
      await sleep(isNear ? Math.min(pause, LIMITS.measureNearLimitMs) : pause, {
        summary: 'until the next measurement',
      });
      await measure(run);
      const failure = tooMuchRetainedWal(m.plan, status.measured?.retainedBytes ?? null);
      if (failure === null || status.phase === 'stopping') continue;
      tooMuch = toApplicationFailure(failure);
      working.cancel();
      return;
    }
  });
  // Its only other end is the cancellation below; anything else is a bug of ours, and must not be swallowed.
  const ended = loop.catch((error: unknown) => {
    if (!isCancellation(error)) throw error;
  });
  try {
    return await working.run(work);
  } catch (error) {
    throw tooMuch ?? error;
  } finally {
    looking.cancel();
    await ended;
  }
}
