import { LEDGER_SCHEMA } from '../contract.ts';
import type { Session } from './connection.ts';
import { quoteIdent, quoteLiteral } from './identifier.ts';

/** The step name under which the setting that was there before is booked. */
const FENCE = 'fence';

/** Read-only by default from now on. What was set before is booked first, so that it can be put back. */
export async function raiseFence(source: Session, target: Session, database: string): Promise<void> {
  await target.query(
    `INSERT INTO ${LEDGER_SCHEMA}.event (step, warning, message)
     SELECT $1, false, $2 WHERE NOT EXISTS (SELECT FROM ${LEDGER_SCHEMA}.event WHERE step = $1)`,
    [FENCE, JSON.stringify({ readOnly: await databaseSetting(source) })],
  );
  await source.query(`ALTER DATABASE ${quoteIdent(database)} SET default_transaction_read_only = on`);
}

/** Whether `raiseFence` has booked something that is to be put back. */
export const isFenced = async (target: Session): Promise<boolean> =>
  (await target.query(`SELECT FROM ${LEDGER_SCHEMA}.event WHERE step = $1`, [FENCE])).length > 0;

/** Puts back what `raiseFence` has booked; nothing where it has booked nothing. */
export async function liftFence(source: Session, target: Session): Promise<void> {
  const [booked] = await target.query<{ message: string }>(
    `SELECT message FROM ${LEDGER_SCHEMA}.event WHERE step = $1`,
    [FENCE],
  );
  if (booked === undefined) return;
  const { readOnly } = JSON.parse(booked.message) as { readOnly: string | null };
  const { database } = await source.one<{ database: string }>('SELECT current_database() AS database');
  const what =
    readOnly === null
      ? 'RESET default_transaction_read_only'
      : `SET default_transaction_read_only = ${quoteLiteral(readOnly)}`;
  await source.query(`ALTER DATABASE ${quoteIdent(database)} ${what}`);
  await target.query(`DELETE FROM ${LEDGER_SCHEMA}.event WHERE step = $1`, [FENCE]);
}

async function databaseSetting(source: Session): Promise<string | null> {
  const [row] = await source.query<{ value: string }>(
    `SELECT substr(setting, length('default_transaction_read_only=') + 1) AS value
       FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) AS setting
      WHERE d.datname = current_database() AND s.setrole = 0 AND setting LIKE 'default\\_transaction\\_read\\_only=%'`,
  );
  return row?.value ?? null;
}
