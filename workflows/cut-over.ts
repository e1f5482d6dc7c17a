import { CancellationScope, condition, isCancellation, workflowInfo } from '@temporalio/workflow';
import { readFailure } from '../src/domain/application-failure.ts';
import { Compensations } from './compensation.ts';
import type { DatabaseRun } from './database-run.ts';
import { step } from './step.ts';

/**
 * Streams until somebody asks to stop, then stops so that nothing is lost. Returns the bytes of WAL that the source
 * wrote after the mark. A stop that fails is put back, the replication goes on, and the operator is asked.
 * `goOnAfresh` throws what continues this workflow with a fresh history: replications last for weeks.
 */
export async function streamUntilCutOver(run: DatabaseRun, goOnAfresh: () => Promise<never>): Promise<number> {
  const { m, status } = run;
  for (;;) {
    status.enter('streaming', 'Every change on the source arrives on the target.');
    if (m.plan.stop.when === 'signal') {
      await watchUntil(run, () => run.stopRequested !== null || workflowInfo().continueAsNewSuggested);
      if (run.stopRequested === null) await goOnAfresh();
    }
    try {
      return await cutOver(run);
    } catch (error) {
      if (isCancellation(error)) throw error;
      run.forgetStop();
      await run.parkable(
        `${m.database}: cut over (it was put back, and the replication goes on)`,
        false,
        failOnce(error),
      );
    }
  }
}

/** Parks while a change cannot be applied; a stop that comes then meets the same at the gate, and is put back. */
async function watchUntil(run: DatabaseRun, over: () => boolean): Promise<void> {
  const { m } = run;
  const watching = new CancellationScope();
  const watched = watching.run(() =>
    run.attempt('watchReplication', `${m.database}: watch that every change is applied`, m),
  );
  try {
    await Promise.race([watched.then(() => condition(over)), condition(over)]);
  } finally {
    watching.cancel();
    await watched.catch(() => undefined);
  }
}

/** Parks with the failure that has happened; `retry` then goes on. */
function failOnce(error: unknown): () => Promise<void> {
  let failed = false;
  return () => {
    if (failed) return Promise.resolve();
    failed = true;
    return Promise.reject(error instanceof Error ? error : new Error(String(error)));
  };
}

async function cutOver(run: DatabaseRun): Promise<number> {
  const { m, status } = run;
  const { database, plan } = m;
  const putBack = new Compensations();
  const reason = run.stopRequested?.reason;
  status.enter('stopping', `Cutting over${reason === undefined ? '' : ` (${reason})`}.`);
  try {
    await step(
      'waitForGate',
      `${database}: wait until the target is at most ${plan.stop.maxLagBytes} bytes behind`,
      m,
      plan.stop.maxLagBytes,
    );
    if (plan.stop.fence === 'read-only') {
      putBack.add('lift the fence on the source', () => step('unfence', `${database}: let writers in again`, m));
      await step('fence', `${database}: make the source read-only and end its writers' sessions`, m);
    }
    const { markLsn } = await step('mark', `${database}: mark the end in the source's WAL`, m);
    await step('waitForDrain', `${database}: wait until the target has confirmed ${markLsn}`, m, markLsn);
    putBack.add('enable the subscriptions again', () =>
      step('enableSubscriptions', `${database}: go on replicating`, m),
    );
    await step('disableSubscriptions', `${database}: disable the subscriptions and wait for their workers`, m);
    await step('syncSequences', `${database}: carry the sequences over`, m);
    return await step('walAfterMark', `${database}: see what was written after the mark`, m);
  } catch (error) {
    const failures = await CancellationScope.nonCancellable(() => putBack.run());
    run.warnings.push(...failures);
    if (!isCancellation(error)) status.enter('streaming', `The cutover was put back: ${readFailure(error).message}`);
    throw error;
  }
}
