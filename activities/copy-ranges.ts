import { LEDGER_SCHEMA } from '../src/contract.ts';
import { MigrationError } from '../src/domain/failure.ts';
import type { Session } from '../src/postgres/connection.ts';
import type { PlannedRange } from '../src/postgres/copy-plan.ts';
import { displayName, quoteName } from '../src/postgres/identifier.ts';
import { rangedTables, rangesOf } from '../src/postgres/key-range.ts';
import type { Table } from '../src/postgres/scope.ts';

/**
 * The ranges that this generation copies, by table, of the tables that are cut. One that has another file than when its
 * finished ranges were copied may have been truncated, which the streams of two generations cannot bring in order: it
 * begins anew. Inside the caller's transaction. `found`: the tables that this generation copies.
 */
export async function rangesToCopy(
  target: Session,
  generation: number,
  found: readonly Table[],
): Promise<Map<number, PlannedRange[]>> {
  const begun = await target.query<{ oid: number; schema: string; name: string; gone: boolean }>(
    `SELECT r.oid::float8 AS oid, r.target_schema AS schema, r.target_name AS name, now.oid IS NULL AS gone
       FROM ${LEDGER_SCHEMA}.relation r LEFT JOIN unnest($1::bigint[], $2::text[]) AS now (oid, filenode) ON now.oid = r.oid
      WHERE r.generation = $3 AND r.filenode IS DISTINCT FROM now.filenode
        AND EXISTS (SELECT FROM ${LEDGER_SCHEMA}.key_range k WHERE k.relation = r.oid)`,
    [found.map(({ oid }) => oid), found.map(({ filenode }) => filenode), generation],
  );
  await target.query(`DELETE FROM ${LEDGER_SCHEMA}.unit WHERE relation = ANY ($1)`, [begun.map(({ oid }) => oid)]);
  await target.query(`UPDATE ${LEDGER_SCHEMA}.key_range SET generation = $1 WHERE relation = ANY ($2)`, [
    generation,
    begun.map(({ oid }) => oid),
  ]);
  await target.query(`DELETE FROM ${LEDGER_SCHEMA}.key_range WHERE relation = ANY ($1)`, [
    begun.filter(({ gone }) => gone).map(({ oid }) => oid),
  ]);
  await empty(target, begun);
  const ranges = await rangesOf(target, generation);
  const ranged = await rangedTables(target);
  // Only the publications of its ranges publish it: copied as a whole, it would get no changes.
  const lacking = found.find(({ oid }) => ranged.has(oid) && !ranges.has(oid));
  if (lacking !== undefined)
    throw new MigrationError(
      'NotComplete',
      `Table ${displayName(lacking.schema, lacking.name)} is copied in ranges of its key, and generation ${generation} has none of them.`,
    );
  return ranges;
}

export async function empty(target: Session, tables: readonly { schema: string; name: string }[]): Promise<void> {
  if (tables.length === 0) return;
  await target.query(`TRUNCATE ${tables.map(({ schema, name }) => `ONLY ${quoteName(schema, name)}`).join(', ')}`);
}
