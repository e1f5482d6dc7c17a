import type { Session } from './connection.ts';
import { redact, sqlstateOf, toMigrationError } from './sqlstate.ts';

export interface Refusal {
  sqlstate: string;
  message: string;
}

/**
 * Runs one statement that the server may refuse without harm to the transaction that is open; null, or why it was refused.
 * What `forgive` does not forgive is thrown; by default what waiting may mend, e.g. a lost connection.
 */
export async function attempt(
  target: Session,
  sql: string,
  forgive: (error: unknown) => boolean = canBeLeftOut,
): Promise<Refusal | null> {
  await target.query('SAVEPOINT attempt');
  try {
    await target.query(sql);
    await target.query('RELEASE SAVEPOINT attempt');
    return null;
  } catch (error) {
    const sqlstate = sqlstateOf(error);
    if (sqlstate === null || !forgive(error)) throw error;
    await target.query('ROLLBACK TO SAVEPOINT attempt');
    return { sqlstate, message: redact(error instanceof Error ? error.message : '') };
  }
}

const canBeLeftOut = (error: unknown): boolean =>
  !toMigrationError(error, { server: 'target', doing: 'making a role' }).retryable;
