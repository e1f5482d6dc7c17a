import type { Session } from './connection.ts';

/**
 * Keeps statements that hold secrets out of the server's log and statistics, where we may. Holds until the transaction
 * ends.
 */
export async function silenceStatementLog(target: Session): Promise<void> {
  const silent = {
    log_statement: 'none',
    log_min_duration_statement: '-1',
    log_min_duration_sample: '-1',
    log_transaction_sample_rate: '0',
    log_min_error_statement: 'panic',
    'pg_stat_statements.track_utility': 'off',
    'pgaudit.log': 'none',
    'auto_explain.log_min_duration': '-1',
  };
  await target.query(
    `SELECT set_config(name, value, true)
       FROM unnest($1::text[], $2::text[]) AS s (name, value)
      WHERE current_setting('is_superuser')::bool AND current_setting(name, true) IS NOT NULL`,
    [Object.keys(silent), Object.values(silent)],
  );
}

/**
 * Runs a statement that holds a secret, in the transaction that is open. Who is no superuser cannot turn logging off: so
 * the secret goes there as a parameter. The server logs the statement of an error and the context of a warning, so the
 * error is caught there, and the statement is hidden in a temporary function, of which a context shows only the name.
 * `statement`: an SQL expression that builds it, with `current_setting('pgtransit.hidden')` for the secret.
 * @returns what the server said against it, or null when it was done
 */
export async function runSecretly(
  session: Session,
  statement: string,
  secret: string,
): Promise<{ sqlstate: string; message: string } | null> {
  await silenceStatementLog(session);
  await session.query(`SELECT set_config('pgtransit.hidden', $1, true), set_config('pgtransit.refusal', '', true)`, [
    secret,
  ]);
  await session.query(`DO $hidden$ BEGIN
    EXECUTE format('CREATE FUNCTION pg_temp.pgtransit_hidden() RETURNS void LANGUAGE sql AS %L', ${statement});
    PERFORM pg_temp.pgtransit_hidden();
    DROP FUNCTION pg_temp.pgtransit_hidden();
  EXCEPTION WHEN query_canceled OR OTHERS THEN
    PERFORM set_config('pgtransit.refusal', SQLSTATE || ' ' || SQLERRM, true);
  END $hidden$`);
  const { said } = await session.one<{ said: string }>(
    `SELECT current_setting('pgtransit.refusal') AS said, set_config('pgtransit.hidden', '', true)`,
  );
  return said === '' ? null : { sqlstate: said.slice(0, 5), message: said.slice(6) };
}
