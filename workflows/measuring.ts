import { CancellationScope, isCancellation, sleep } from '@temporalio/workflow';
import { readFailure } from '../src/domain/application-failure.ts';
import { LIMITS } from '../src/domain/limits.ts';
import type { DatabaseRun } from './database-run.ts';
import { step } from './step.ts';

/** One look; a server that cannot be reached is worth telling, and nothing more: the steps retry by themselves. */
export async function measure(run: DatabaseRun): Promise<void> {
  try {
    const measured = await step('measure', `${run.m.database}: measure progress and lag`, run.m);
    run.status.measure(measured, measured.problem);
  } catch (error) {
    if (isCancellation(error)) throw error;
    run.status.measure(null, readFailure(error).message);
  }
}

/** Measures beside the steps, from often to rarely, until `work` is over. */
export async function measuring(run: DatabaseRun, work: () => Promise<void>): Promise<void> {
  const scope = new CancellationScope();
  const loop = scope.run(async () => {
    for (let pause: number = LIMITS.measureFirstMs; ; pause = Math.min(pause * 2, LIMITS.measureMostMs)) {
      await sleep(pause, { summary: 'until the next measurement' });
      await measure(run);
    }
  });
  // Its only end is the cancellation below; anything else is a bug of ours, and must not be swallowed.
  const ended = loop.catch((error: unknown) => {
    if (!isCancellation(error)) throw error;
  });
  try {
    await work();
  } finally {
    scope.cancel();
    await ended;
  }
}
