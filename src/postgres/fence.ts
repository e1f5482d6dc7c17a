import { LEDGER_SCHEMA } from '../contract.ts';
import type { Session } from './connection.ts';
import { quoteIdent, quoteLiteral } from './identifier.ts';

/** The step name under which the ledger keeps the setting that was there before. */
export const FENCE_STEP = 'fence';

/** Whether `fence` has booked something that is to be put back. */
export const isFenced = async (target: Session): Promise<boolean> =>
  (await target.query(`SELECT FROM ${LEDGER_SCHEMA}.event WHERE step = $1`, [FENCE_STEP])).length > 0;

/** Puts back what `fence` has booked; nothing where it has booked nothing. */
export async function liftFence(source: Session, target: Session): Promise<void> {
  const [booked] = await target.query<{ message: string }>(
    `SELECT message FROM ${LEDGER_SCHEMA}.event WHERE step = $1`,
    [FENCE_STEP],
  );
  if (booked === undefined) return;
  const { readOnly } = JSON.parse(booked.message) as { readOnly: string | null };
  const { database } = await source.one<{ database: string }>('SELECT current_database() AS database');
  const what =
    readOnly === null
      ? 'RESET default_transaction_read_only'
      : `SET default_transaction_read_only = ${quoteLiteral(readOnly)}`;
  await source.query(`ALTER DATABASE ${quoteIdent(database)} ${what}`);
  await target.query(`DELETE FROM ${LEDGER_SCHEMA}.event WHERE step = $1`, [FENCE_STEP]);
}
