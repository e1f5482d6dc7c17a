import { LEDGER_SCHEMA } from '../contract.ts';
import type { Session } from './connection.ts';
import { displayName, quoteLiteral, quoteName } from './identifier.ts';

/**
 * TRUNCATE has no place in the order of two streams: the first to bring it would take away rows of the other, of before
 * and after. A trigger on the target refuses it for a table whose key ranges came with different generations, so that
 * each of their apply workers stops there, and nothing is wrong without a word.
 */
const TRIGGER = 'pgtransit_refuse_truncate';

const refusal = (table: string): string =>
  `table ${table} was truncated on the source, and its key ranges came with different snapshots, whose streams cannot do that in order`;

/** Inside the caller's transaction. What an earlier attempt has made is made anew. */
export async function refuseTruncate(
  target: Session,
  tables: readonly { schema: string; name: string }[],
): Promise<void> {
  for (const [number, { schema, name }] of tables.entries()) {
    const refuse = `${LEDGER_SCHEMA}.refuse_truncate_${number}`;
    const table = quoteName(schema, name);
    const body = `BEGIN RAISE EXCEPTION USING MESSAGE = ${quoteLiteral(refusal(displayName(schema, name)))}; END`;
    await target.query(
      `CREATE OR REPLACE FUNCTION ${refuse}() RETURNS trigger LANGUAGE plpgsql AS ${quoteLiteral(body)}`,
    );
    await target.query(`DROP TRIGGER IF EXISTS ${TRIGGER} ON ${table}`);
    await target.query(`CREATE TRIGGER ${TRIGGER} BEFORE TRUNCATE ON ${table} EXECUTE FUNCTION ${refuse}()`);
    // Apply workers fire no others.
    await target.query(`ALTER TABLE ${table} ENABLE ALWAYS TRIGGER ${TRIGGER}`);
  }
}

/** Lets it through again: from then on the target is written to by its application. */
export async function allowTruncate(target: Session): Promise<void> {
  const tables = await target.query<{ schema: string; name: string }>(
    `SELECT n.nspname AS schema, c.relname AS name FROM pg_trigger t
       JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE t.tgname = $1`,
    [TRIGGER],
  );
  for (const { schema, name } of tables)
    await target.query(`DROP TRIGGER IF EXISTS ${TRIGGER} ON ${quoteName(schema, name)}`);
}

/** Why a TRUNCATE of these tables cannot be applied, as a half sentence; null when it can. */
export async function refusalOfTruncate(
  target: Session,
  tables: readonly { schema: string; name: string }[],
): Promise<string | null> {
  for (const { schema, name } of tables) {
    const found = await target.query('SELECT FROM pg_trigger WHERE tgname = $1 AND tgrelid = to_regclass($2)', [
      TRIGGER,
      quoteName(schema, name),
    ]);
    if (found.length > 0) return refusal(displayName(schema, name));
  }
  return null;
}
