import type { Session } from './connection.ts';
import { redact, sqlstateOf, toMigrationError } from './sqlstate.ts';

/**
 * Runs one statement that the server may refuse without harm to the transaction that is open; null, or why it was refused.
 * What waiting may mend, e.g. a lost connection, is thrown.
 */
export async function attempt(target: Session, sql: string): Promise<{ sqlstate: string; message: string } | null> {
  await target.query('SAVEPOINT attempt');
  try {
    await target.query(sql);
    await target.query('RELEASE SAVEPOINT attempt');
    return null;
  } catch (error) {
    const sqlstate = sqlstateOf(error);
    if (sqlstate === null || toMigrationError(error, { server: 'target', doing: 'making a role' }).retryable)
      throw error;
    await target.query('ROLLBACK TO SAVEPOINT attempt');
    return { sqlstate, message: `${redact(error instanceof Error ? error.message : '')}.` };
  }
}
