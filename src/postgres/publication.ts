import type { Session } from './connection.ts';
import { quoteIdent, quoteName } from './identifier.ts';

/** Replaces an earlier one of the same name: nothing can follow it yet, since it must exist before its slot does. */
export async function createPublication(
  source: Session,
  name: string,
  tables: readonly { schema: string; name: string }[],
): Promise<void> {
  const list = tables.map((table) => `ONLY ${quoteName(table.schema, table.name)}`).join(', ');
  await source.transaction(async () => {
    await dropPublication(source, name);
    // Without tables it publishes nothing, and that is right: tables that come later are in nobody's plan.
    await source.query(`CREATE PUBLICATION ${quoteIdent(name)}${list === '' ? '' : ` FOR TABLE ${list}`}`);
  });
}

export async function dropPublication(source: Session, name: string): Promise<void> {
  await source.query(`DROP PUBLICATION IF EXISTS ${quoteIdent(name)}`);
}

/** Oids of the tables that the publication lists. */
export async function publishedTables(source: Session, name: string): Promise<Set<number>> {
  const rows = await source.query<{ oid: number }>(
    `SELECT r.prrelid::bigint::float8 AS oid FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid WHERE p.pubname = $1`,
    [name],
  );
  return new Set(rows.map(({ oid }) => oid));
}
