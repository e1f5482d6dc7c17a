import { isCancellation, sleep } from '@temporalio/workflow';
import { readFailure } from '../src/domain/application-failure.ts';
import { LIMITS } from '../src/domain/limits.ts';
import type { Condition, StreamSample } from '../src/domain/readiness.ts';
import { unknown } from '../src/domain/readiness.ts';
import type { DatabaseRun } from './database-run.ts';
import { step } from './step.ts';

/** Looks at what a cutover needs, from often to rarely, until it is cancelled; nothing waits for it. */
export async function assessing({ m, status }: DatabaseRun): Promise<never> {
  let before: StreamSample | null = null;
  for (let pause: number = LIMITS.assessFirstMs; ; pause = Math.min(pause * 2, LIMITS.measureMostMs)) {
    try {
      const { conditions, sample }: { conditions: Condition[]; sample: StreamSample | null } = await step(
        'readiness',
        `${m.database}: see whether it is ready to be cut over`,
        m,
        before,
      );
      before = sample ?? before;
      status.assess(conditions);
    } catch (error) {
      if (isCancellation(error)) throw error;
      status.assess([{ name: 'readiness', ...unknown(readFailure(error).message) }]);
    }
    await sleep(pause, { summary: 'until the next look at what a cutover needs' });
  }
}
