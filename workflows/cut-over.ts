import { allHandlersFinished, CancellationScope, condition, isCancellation, workflowInfo } from '@temporalio/workflow';
import { readFailure } from '../src/domain/application-failure.ts';
import type { WriteCounters } from '../src/domain/migration.ts';
import { endsSessions } from '../src/domain/plan.ts';
import type { Fence } from '../src/domain/plan.ts';
import type { CutoverReport, Verified } from '../src/domain/progress.ts';
import { assessing } from './assessing.ts';
import { Compensations } from './compensation.ts';
import type { DatabaseRun } from './database-run.ts';
import { within } from './deadline.ts';
import { deadlinePassed, failOnce, fenceBroken, gateStayedShut, orPutBack } from './put-back.ts';
import { sideBySide } from './side-by-side.ts';
import { step } from './step.ts';

export interface CutOver {
  walAfterMarkBytes: number;
  cutover: CutoverReport;
}

/**
 * Streams until somebody asks to stop, then stops so that nothing is lost. A stop that fails is put back, the replication
 * goes on, and the operator is asked. `goOnAfresh` throws what continues this workflow with a fresh history: replications
 * last for weeks.
 */
export async function streamUntilCutOver(run: DatabaseRun, goOnAfresh: () => Promise<never>): Promise<CutOver> {
  const { m, status } = run;
  for (;;) {
    status.enter('streaming', 'Every change on the source arrives on the target.');
    if (m.plan.stop.when === 'signal') {
      await watchUntil(run, () => run.untilStopIsDue(() => workflowInfo().continueAsNewSuggested));
      if (!run.stopIsDue()) {
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
      // Then the one that failed asks.
      if (readFailure(error).type === 'PutBack') continue;
      await run.parkable(`${m.database}: cut over`, false, failOnce(error));
    }
  }
}

/** Parks while a change cannot be applied; a stop that comes then meets the same at the gate, and is put back. */
async function watchUntil(run: DatabaseRun, over: () => Promise<void>): Promise<void> {
  const { m } = run;
  const watching = new CancellationScope();
  const watched = watching.run(() =>
    run.attempt('watchReplication', `${m.database}: watch that every change is applied`, m),
  );
  const compared = watching.run(async () => {
    if (m.plan.verify === 'full')
      await run.attempt('verifyStreaming', `${m.database}: compare the rows while they stream`, m);
  });
  const assessed = watching.run(() => assessing(run));
  const ended = watching.run(over);
  try {
    // Whatever ends the watching, an operator's `skip` among it, the stop is waited for.
    await Promise.race([Promise.all([watched, compared]).then(() => ended), ended, assessed]);
  } finally {
    watching.cancel();
    await Promise.allSettled([watched, compared, assessed, ended]);
  }
}

/** One attempt: what it does, how long each step takes, and what puts it back. */
interface Attempt {
  run: DatabaseRun;
  fence: Fence;
  fencedBy: string | null;
  verified: Verified | null;
  /** As the source counted writes to large objects, before those were copied once more. */
  ahead: WriteCounters | null;
  /** When the fence has to be lifted, if the cutover is not done: milliseconds of the workflow's clock. */
  endsAt: number;
  putBack: Compensations;
  /** As it says of itself. */
  current: string;
  steps: CutoverReport['steps'];
  next: typeof step;
}

function begin(run: DatabaseRun, fence: Fence): Attempt {
  const attempt: Attempt = {
    ...{
      run,
      fence,
      fencedBy: null,
      verified: null,
      ahead: null,
      endsAt: Infinity,
      putBack: new Compensations(),
      current: '',
      steps: [],
    },
    next: (name, summary, ...args) => timed(attempt, name, summary, step(name, summary, ...args)),
  };
  return attempt;
}

async function timed<T>(attempt: Attempt, name: string, summary: string, work: Promise<T>): Promise<T> {
  attempt.current = summary;
  const began = Date.now();
  const timed = { name, ms: 0 };
  attempt.steps.push(timed);
  const result = await work;
  timed.ms = Date.now() - began;
  return result;
}

async function cutOver(run: DatabaseRun): Promise<CutOver> {
  const { m, status } = run;
  const { database, plan } = m;
  const stop = run.stopRequested ?? {};
  const attempt = begin(run, stop.fence ?? plan.stop.fence);
  const { fence, putBack } = attempt;
  status.enter('stopping', `Cutting over${stop.reason === undefined ? '' : ` (${stop.reason})`}.`);
  const working = orPutBack(
    run,
    putBack,
    'streaming',
    (failures) => outcomeOf(attempt, failures),
    async () => {
      await run.attempt('refreshMaterializedViews', `${database}: refresh the materialized views`, m, 'filled');
      const differences = await schemaDifferences(run);
      const ahead = await run.attempt('catchUpLargeObjects', `${database}: copy large objects that changed`, m);
      attempt.ahead = endsSessions(fence) ? (ahead ?? null) : null;
      const seconds = stop.deadlineSeconds ?? plan.stop.deadlineSeconds;
      await passGate(attempt, seconds);
      await run.agree('ready');
      const walAfterMarkBytes =
        // Without a fence nobody waits for the cutover to end.
        fence === 'none'
          ? await drainAndCarryOver(attempt)
          : await within(
              seconds,
              `${database}: until writers are let in again`,
              async () => {
                attempt.endsAt = Date.now() + seconds * 1000;
                await putUpFence(attempt);
                return drainAndCarryOver(attempt);
              },
              (waitingFor) => deadlinePassed('cutover', seconds, attempt.current, waitingFor),
            );
      await run.agree('drained');
      run.warnings.push(...differences);
      const { fencedBy, steps, verified } = attempt;
      const openedAt = new Date().toISOString();
      return {
        walAfterMarkBytes,
        cutover: { fence, fencedBy, steps, verified, openedAt, switchedAt: null, switchedBy: null },
      };
    },
  );
  return working.catch(async (error: unknown) => {
    if (!isCancellation(error)) await run.disagree(readFailure(error).message);
    throw error;
  });
}

/** For the report: what came by DDL is no reason not to cut over, and neither is that nobody could look. */
async function schemaDifferences({ m }: DatabaseRun): Promise<string[]> {
  try {
    const { differences } = await step('compareSchemas', `${m.database}: compare the schemas of both servers`, m);
    return differences.map((difference) => `The schemas differ at the cutover. ${difference}`);
  } catch (error) {
    if (isCancellation(error) || readFailure(error).type === 'NotComplete') throw error;
    return [`The schemas were not compared at the cutover. ${readFailure(error).message}`];
  }
}

/** Whoever asked for a fence with a deadline is told within it that it cannot go up yet; nobody else waits. */
async function passGate({ run, fence, next }: Attempt, seconds: number): Promise<void> {
  const { m } = run;
  const { maxLagBytes } = m.plan.stop;
  const gate = `${m.database}: wait until the target is at most ${maxLagBytes} bytes behind`;
  const wait = () => next('waitForGate', gate, m, maxLagBytes);
  if (fence === 'none' || run.stopRequested === null) return wait();
  return within(seconds, `${m.database}: until the cutover must have begun`, wait, (waitingFor) =>
    gateStayedShut(seconds, waitingFor),
  );
}

async function putUpFence(attempt: Attempt): Promise<void> {
  const { run, fence, putBack, next } = attempt;
  const { m } = run;
  const { database } = m;
  if (fence === 'none') return;
  if (fence !== 'external') {
    putBack.add('lift the fence on the source', () => step('unfence', `${database}: let writers in again`, m));
    await next('fence', FENCING[fence](database), m, fence);
    return;
  }
  const waiting = run.waitForWord(
    'fenced',
    'Keep writers out of the source, then send the update fenced; that is waited for until the deadline.',
  );
  attempt.fencedBy = await timed(attempt, 'fence', `${database}: wait for the update fenced`, waiting);
}

const FENCING = {
  'read-only': (database: string) => `${database}: make the source read-only and end its writers' sessions`,
  'lock-out': (database: string) => `${database}: let nobody connect to the source and end all sessions`,
  pgbouncer: (database: string) => `${database}: pause the clients in PgBouncer`,
} as const;

/** Everything between the last write and the end of the replication. Returns bytes of WAL that were not carried over. */
async function drainAndCarryOver(attempt: Attempt): Promise<number> {
  const { run, ahead, putBack, next } = attempt;
  const { m } = run;
  const { database } = m;
  const { markLsn } = await next('mark', `${database}: mark the end in the source's WAL`, m);
  await next('waitForDrain', `${database}: wait until the target has confirmed ${markLsn}`, m, markLsn);
  putBack.add('enable the subscriptions again', () => step('enableSubscriptions', `${database}: go on replicating`, m));
  await next('disableSubscriptions', `${database}: disable the subscriptions and wait for their workers`, m);
  if (m.plan.verify === 'full') await verify(attempt);
  // After all that takes long: what was written until now is found.
  const [, bytesAfterMark] = await sideBySide(
    () => next('carryOver', `${database}: carry over what no stream brings, such as sequences`, m, ahead),
    () => requireNothingWritten(attempt),
  );
  if (m.plan.reverse !== false) {
    putBack.add('drop the reverse replication', () =>
      step('dropReverse', `${database}: drop what the source would have followed by`, m),
    );
    await next('armReverse', `${database}: let the source follow the target from now on`, m);
  }
  return bytesAfterMark;
}

/** Compares in what is left of the deadline, but for what the steps after it may take. */
async function verify(attempt: Attempt): Promise<void> {
  const { run, fence, endsAt, next } = attempt;
  const { m } = run;
  if (fence === 'none') {
    run.warnings.push('Nothing was compared at the cutover: without a fence, rows may change on the source meanwhile.');
    return;
  }
  const seconds = Math.max(1, Math.floor(((endsAt - Date.now()) / 1000) * 0.8));
  try {
    const what = `${m.database}: compare the rows that may have changed, for ${seconds} s`;
    attempt.verified = await next('verifyFenced', what, m, seconds, endsSessions(fence));
  } catch (error) {
    if (isCancellation(error) || readFailure(error).type !== 'RowsDiffer') throw error;
    // Rows that somebody writes behind the fence differ, and are not what is wrong.
    await requireNothingWritten(attempt);
    throw error;
  }
}

async function requireNothingWritten({ run, fence, next }: Attempt): Promise<number> {
  const { m } = run;
  const after = await next('walAfterMark', `${m.database}: see what was written after the mark`, m);
  if (fence !== 'none' && after.bytes > 0) throw fenceBroken(m.database, 'source', after);
  return after.bytes;
}

function outcomeOf({ fence, fencedBy }: Attempt, failures: readonly string[]): string {
  if (failures.length > 0) return `Not everything could be put back: ${failures.join(' ')}`;
  const external =
    fence === 'external' && fencedBy !== null ? ` The fence that ${fencedBy} put up is theirs to lift.` : '';
  return `The cutover was put back, and the replication goes on.${external}`;
}
