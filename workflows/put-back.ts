import { isCancellation } from '@temporalio/workflow';
import { readFailure, toApplicationFailure } from '../src/domain/application-failure.ts';
import { MigrationError } from '../src/domain/failure.ts';
import type { Phase } from '../src/domain/phase.ts';
import type { Compensations } from './compensation.ts';
import type { DatabaseRun } from './database-run.ts';

/**
 * Does `work`, and when it fails puts back what it has done: then the database is in `phase` again, and the failure says
 * so. `outcomeOf` says it, given what could not be put back.
 */
export async function orPutBack<T>(
  run: DatabaseRun,
  putBack: Compensations,
  phase: Phase,
  outcomeOf: (failures: readonly string[]) => string,
  work: () => Promise<T>,
): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const failures = await putBack.run();
    if (isCancellation(error)) {
      run.warnings.push(...failures);
      throw error;
    }
    const outcome = outcomeOf(failures);
    run.status.enter(phase, outcome);
    const { type, message, details } = readFailure(error);
    throw toApplicationFailure(
      new MigrationError(type === 'Unknown' ? 'ServerError' : type, `${message} ${outcome}`, details ?? {}),
    );
  }
}

/** Parks with the failure that has happened; `retry` then goes on. */
export function failOnce(error: unknown): () => Promise<void> {
  let failed = false;
  return () => {
    if (failed) return Promise.resolve();
    failed = true;
    return Promise.reject(error instanceof Error ? error : new Error(String(error)));
  };
}

export const deadlinePassed = (what: string, seconds: number, current: string, waitingFor: string | null): Error =>
  toApplicationFailure(
    new MigrationError(
      'DeadlinePassed',
      `The ${what} was not done ${seconds} s after the fence began to go up. It had come to the step "${current}"` +
        (waitingFor === null ? '.' : `, and waited for ${waitingFor}.`),
    ),
  );

/** Nobody was kept out yet. */
export const gateStayedShut = (seconds: number, waitingFor: string | null): Error =>
  toApplicationFailure(
    new MigrationError(
      'DeadlinePassed',
      `The cutover did not begin within ${seconds} s: it waited for ${waitingFor ?? 'the target to catch up'}.`,
    ),
  );

/** A fence that somebody got around. `server`: the one behind it. */
export function fenceBroken(
  database: string,
  server: 'source' | 'target',
  { bytes, tables }: { bytes: number; tables: readonly string[] },
): Error {
  const where = tables.length === 0 ? '' : `, to ${tables.join(', ')}`;
  return toApplicationFailure(
    new MigrationError(
      'FenceBroken',
      `Somebody wrote ${bytes} bytes to database "${database}" on the ${server} behind the fence${where}.`,
      { object: tables[0] ?? database },
    ),
  );
}
