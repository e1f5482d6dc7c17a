import {
  allHandlersFinished,
  CancellationScope,
  condition,
  isCancellation,
  sleep,
  workflowInfo,
} from '@temporalio/workflow';
import { readFailure } from '../src/domain/application-failure.ts';
import { LIMITS } from '../src/domain/limits.ts';
import type { CutoverReport } from '../src/domain/progress.ts';
import type { RollbackRequest } from '../src/contract.ts';
import { Compensations } from './compensation.ts';
import type { DatabaseRun } from './database-run.ts';
import { within } from './deadline.ts';
import { sourceServesAgain } from './ending.ts';
import { deadlinePassed, failOnce, fenceBroken, orPutBack } from './put-back.ts';
import { step } from './step.ts';

const FOLLOWS = 'The target serves, and the source follows it until the update complete, or rollback.';

/**
 * The source follows the target until an operator decides. Returns whether it was gone back to. A rollback that fails is
 * put back, the target goes on serving, and the operator is asked. `goOnAfresh` as in `streamUntilCutOver`.
 */
export async function followBack(
  run: DatabaseRun,
  cutover: CutoverReport,
  goOnAfresh: () => Promise<never>,
): Promise<boolean> {
  const { m, status } = run;
  for (;;) {
    status.enter('reversing', FOLLOWS);
    await watchUntilDecided(run, cutover);
    const { decision } = run.decisions;
    if (decision === null) {
      await condition(allHandlersFinished);
      await goOnAfresh();
    }
    if (decision?.kind !== 'rollback') return false;
    try {
      await rollBack(run, decision.request);
      return true;
    } catch (error) {
      if (isCancellation(error)) throw error;
      run.decisions.forget();
      await run.parkable(`${m.database}: roll back`, false, failOnce(error));
    }
  }
}

/** Beside it the stream back is watched and measured; a decision is taken also while it is parked. */
async function watchUntilDecided(run: DatabaseRun, cutover: CutoverReport): Promise<void> {
  const { m } = run;
  const watching = new CancellationScope();
  const decided = condition(() => run.decisions.decision !== null || workflowInfo().continueAsNewSuggested);
  const watched = watching.run(() => run.attempt('watchReverse', `${m.database}: watch that the source follows`, m));
  const measured = watching.run(() => measuringBack(run, cutover));
  try {
    await Promise.race([watched.then(() => decided), decided, measured]);
  } finally {
    watching.cancel();
    await Promise.allSettled([watched, measured]);
  }
}

async function measuringBack(run: DatabaseRun, { openedAt }: CutoverReport): Promise<never> {
  const { m, status } = run;
  const days = m.plan.reverse === false ? 0 : m.plan.reverse.days;
  for (let pause: number = LIMITS.measureFirstMs; ; pause = Math.min(pause * 2, LIMITS.measureMostMs)) {
    const isDue = Date.now() - Date.parse(openedAt) > days * 86_400_000;
    const reminder = isDue ? `The source has followed the target for ${days} days: send complete, or rollback.` : null;
    try {
      const { problem, ...numbers } = await step('measureReverse', `${m.database}: measure how far the source is`, m);
      status.measure({ ...status.measured, ...numbers, problem: null }, problem ?? reminder);
    } catch (error) {
      if (isCancellation(error)) throw error;
      status.measure(null, readFailure(error).message);
    }
    await sleep(pause, { summary: 'until the next measurement' });
  }
}

/** The cutover the other way. When it returns, the source has everything and can be written to. */
async function rollBack(run: DatabaseRun, request: RollbackRequest): Promise<void> {
  const { m, status } = run;
  const { database } = m;
  const putBack = new Compensations();
  let current = '';
  const next: typeof step = (name, summary, ...args) => {
    current = summary;
    return step(name, summary, ...args);
  };
  status.enter(
    'rolling-back',
    `Going back to the source${request.reason === undefined ? '' : ` (${request.reason})`}.`,
  );
  const seconds = request.deadlineSeconds ?? m.plan.stop.deadlineSeconds;
  await orPutBack(run, putBack, 'reversing', outcomeOf, () =>
    within(
      seconds,
      `${database}: until writers are let in on the target again`,
      async () => {
        putBack.add('lift the fence on the target', () =>
          step('unfenceTarget', `${database}: let writers in on the target again`, m),
        );
        await next('fenceTarget', `${database}: make the target read-only and end its writers' sessions`, m);
        await next('drainBack', `${database}: mark the end in the target's WAL and wait until the source has it`, m);
        putBack.add('enable the reverse replication', () => step('enableReverse', `${database}: go on following`, m));
        const after = await next(
          'closeBack',
          `${database}: carry the sequences back, and see what came after the mark`,
          m,
        );
        if (after.bytes > 0) throw fenceBroken(database, 'target', after);
      },
      (waitingFor) => deadlinePassed('rollback', seconds, current, waitingFor),
    ),
  );
  // The point of no return: from here on the source may be written to.
  sourceServesAgain(run);
  await run.attempt('unfence', `${database}: let writers in on the source again`, m);
}

const outcomeOf = (failures: readonly string[]): string =>
  failures.length === 0
    ? 'The rollback was put back: the target serves, and the source follows it.'
    : `Not everything could be put back: ${failures.join(' ')}`;
