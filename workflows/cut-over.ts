import { allHandlersFinished, CancellationScope, condition, isCancellation, workflowInfo } from '@temporalio/workflow';
import { readFailure, toApplicationFailure } from '../src/domain/application-failure.ts';
import { MigrationError } from '../src/domain/failure.ts';
import type { Migration } from '../src/domain/migration.ts';
import { assessing } from './assessing.ts';
import { Compensations } from './compensation.ts';
import type { DatabaseRun } from './database-run.ts';
import { within } from './deadline.ts';
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
      if (run.stopRequested === null) {
        // A rehearsal is answered by the run that was asked.
        await condition(allHandlersFinished);
        await goOnAfresh();
      }
    }
    try {
      return await cutOver(run);
    } catch (error) {
      if (isCancellation(error)) throw error;
      run.forgetStop();
      await run.parkable(`${m.database}: cut over`, false, failOnce(error));
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
  const assessed = watching.run(() => assessing(run));
  try {
    await Promise.race([watched.then(() => condition(over)), condition(over), assessed]);
  } finally {
    watching.cancel();
    await Promise.allSettled([watched, assessed]);
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
    // Without a fence nobody waits for the cutover to end.
    if (plan.stop.fence === 'none') return await drainAndCarryOver(m, putBack, step);
    const seconds = run.stopRequested?.deadlineSeconds ?? plan.stop.deadlineSeconds;
    let current = '';
    const noted: typeof step = (name, summary, ...args) => {
      current = summary;
      return step(name, summary, ...args);
    };
    return await within(
      seconds,
      `${database}: until writers are let in again`,
      async () => {
        putBack.add('lift the fence on the source', () => step('unfence', `${database}: let writers in again`, m));
        await noted('fence', `${database}: make the source read-only and end its writers' sessions`, m);
        return drainAndCarryOver(m, putBack, noted);
      },
      () => deadlinePassed(seconds, current),
    );
  } catch (error) {
    const failures = await putBack.run();
    if (isCancellation(error)) {
      run.warnings.push(...failures);
      throw error;
    }
    const outcome =
      failures.length === 0
        ? 'The cutover was put back, and the replication goes on.'
        : `Not everything could be put back: ${failures.join(' ')}`;
    status.enter('streaming', outcome);
    throw withOutcome(error, outcome);
  }
}

function withOutcome(error: unknown, outcome: string): Error {
  const { type, message, details } = readFailure(error);
  return toApplicationFailure(
    new MigrationError(type === 'Unknown' ? 'ServerError' : type, `${message} ${outcome}`, details ?? {}),
  );
}

/** Everything between the last write and the end of the replication; `putBack` gets what undoes it. */
async function drainAndCarryOver(m: Migration, putBack: Compensations, next: typeof step): Promise<number> {
  const { database } = m;
  const { markLsn } = await next('mark', `${database}: mark the end in the source's WAL`, m);
  await next('waitForDrain', `${database}: wait until the target has confirmed ${markLsn}`, m, markLsn);
  putBack.add('enable the subscriptions again', () => step('enableSubscriptions', `${database}: go on replicating`, m));
  await next('disableSubscriptions', `${database}: disable the subscriptions and wait for their workers`, m);
  await next('syncSequences', `${database}: carry the sequences over`, m);
  return next('walAfterMark', `${database}: see what was written after the mark`, m);
}

const deadlinePassed = (seconds: number, current: string): Error =>
  toApplicationFailure(
    new MigrationError(
      'DeadlinePassed',
      `The cutover was not done ${seconds} s after the fence went up. It had come to the step "${current}".`,
    ),
  );
