import { isCancellation } from '@temporalio/workflow';
import { readFailure, toApplicationFailure } from '../src/domain/application-failure.ts';
import { MigrationError } from '../src/domain/failure.ts';
import type { Fence } from '../src/domain/plan.ts';
import { capDatabaseReport, LOCKED_OUT } from '../src/domain/progress.ts';
import type { DatabaseRun } from './database-run.ts';
import { endStep } from './step.ts';

/** What a migration that is cancelled or fails leaves: until the target serves, the source as it was. */
export function undoAtEnd(run: DatabaseRun): void {
  const { m, compensations } = run;
  compensations.clear();
  compensations.add('undo everything on both servers', () =>
    endStep('undo', `${m.database}: undo what was made on both servers`, m),
  );
  run.endsWith = null;
}

/**
 * From here on clients may write to the target. An end undoes nothing that keeps them there: the fence on the source stays,
 * for writers in two places lose rows; what is left of the migration is only cleared away. `areHeld`: by PgBouncer, which
 * has all of them in one place, and where they hang until it is told to let them go.
 */
export function targetServes(run: DatabaseRun, fence: Fence, areHeld: boolean): void {
  const { m, compensations } = run;
  compensations.clear();
  compensations.add('drop the bookkeeping', () => endStep('finish', `${m.database}: drop the bookkeeping`, m));
  compensations.add('drop the replication', () =>
    endStep('clearAway', `${m.database}: drop the replication on both servers`, m),
  );
  const follows = m.plan.reverse === false ? '' : ', and the source follows it no more';
  run.endsWith = sentences(`The target serves${follows}.`, STILL_FENCED[fence]);
  if (fence === 'lock-out')
    // Only the bookkeeping knows what was granted; without it, it is said in general.
    compensations.add('read who could connect to the source', async () => {
      const written = await endStep('readReport', `${m.database}: read what was done`, m).catch(() => null);
      const lockedOut = written?.warnings.find((warning) => warning.startsWith(LOCKED_OUT));
      if (lockedOut !== undefined) run.endsWith = sentences(`The target serves${follows}.`, lockedOut);
    });
  if (!areHeld) return;
  compensations.add('let the clients go on in PgBouncer', () =>
    endStep('unfence', `${m.database}: let the clients go on, wherever PgBouncer leads them`, m),
  );
  run.endsWith = 'The target has everything, and the clients go on where PgBouncer leads them.';
}

/** After a rollback has drained: what keeps writers out of the source has to go, whatever happens. */
export function sourceServesAgain(run: DatabaseRun): void {
  const { m } = run;
  run.compensations.add('let writers in on the source', () =>
    endStep('unfence', `${m.database}: let writers in on the source again`, m),
  );
  run.endsWith = 'The source serves again, with everything that was written to the target.';
}

export const STILL_FENCED: Record<Fence, string> = {
  none: '',
  'read-only': 'The source is still read-only.',
  'lock-out': 'The source still lets nobody connect.',
  pgbouncer: '',
  external: 'The fence on the source is still up, unless who put it up has lifted it.',
};

/** Puts back or clears away, and returns the cancellation to end with, or the failure with the report in its details. */
export async function ended(run: DatabaseRun, error: unknown): Promise<unknown> {
  const { m, status } = run;
  const leftovers = await run.compensations.run();
  const { endsWith } = run;
  const failure = readFailure(error);
  const left =
    leftovers.length === 0
      ? null
      : `Not everything could be ${endsWith === null ? 'undone' : 'cleared away'}: ${leftovers.join(' ')}`;
  const outcome = sentences(endsWith, left);
  if (isCancellation(error) && left === null) {
    if (endsWith === null) status.enter('cancelled', 'The source is as it was.');
    else await status.enterCancelled(endsWith);
    return error;
  }
  // Temporal's "Canceled" would say that all is well.
  const isNotUndone = isCancellation(error);
  const message = isNotUndone ? sentences('Cancelled.', outcome) : sentences(failure.message, endsWith);
  status.enter('failed', message);
  const measured = status.measured;
  const report = capDatabaseReport({
    database: m.database,
    method: m.method,
    status: 'failed',
    message,
    tables: measured?.tables?.copied ?? 0,
    rows: measured?.rows ?? 0,
    bytes: measured?.bytes?.copied ?? 0,
    seconds: status.seconds(),
    generations: status.generations,
    walAfterMarkBytes: null,
    cutover: null,
    warnings: [...run.warnings, ...leftovers],
  });
  const next = outcome === '' ? 'Everything was undone. Mend the cause, then start the migration again.' : outcome;
  const [type, details] = isNotUndone
    ? (['NotUndone', {}] as const)
    : ([failure.type === 'Unknown' ? 'ServerError' : failure.type, { ...failure.details, next }] as const);
  return toApplicationFailure(new MigrationError(type, `${m.database}: ${message}`, details), [report]);
}

const sentences = (...texts: readonly (string | null)[]): string =>
  texts.filter((text) => text !== null && text !== '').join(' ');
