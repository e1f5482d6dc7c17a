import { LIMITS } from '../domain/limits.ts';
import type { Session } from './connection.ts';
import { quoteIdent, quoteName } from './identifier.ts';

/** Replaces an earlier one of the same name: nothing can follow it yet, since it must exist before its slot does. */
export async function createPublication(
  source: Session,
  name: string,
  tables: readonly { schema: string; name: string }[],
): Promise<void> {
  await dropPublication(source, name);
  // Without tables it publishes nothing, and that is right: tables that come later are in nobody's plan.
  await source.query(`CREATE PUBLICATION ${quoteIdent(name)}`);
  for (let first = 0; first < tables.length; first += LIMITS.tablesPerPublicationStatement) {
    const some = tables.slice(first, first + LIMITS.tablesPerPublicationStatement);
    const list = some.map((table) => `ONLY ${quoteName(table.schema, table.name)}`).join(', ');
    // Each commits by itself; there is no slot yet, so nobody follows a publication that is half made.
    await source.query(`ALTER PUBLICATION ${quoteIdent(name)} ADD TABLE ${list}`);
  }
}

/** One that lists the rows of one table for which the condition holds. Replaces an earlier one of the same name. */
export async function createFilteredPublication(
  source: Session,
  name: string,
  table: { schema: string; name: string },
  condition: string,
): Promise<void> {
  await dropPublication(source, name);
  const listed = `ONLY ${quoteName(table.schema, table.name)} WHERE (${condition})`;
  await source.query(`CREATE PUBLICATION ${quoteIdent(name)} FOR TABLE ${listed}`);
}

/** Dropping it whole would lock every table that it lists at once. */
export async function dropPublication(source: Session, name: string): Promise<void> {
  for (;;) {
    const some = await source.query<{ schema: string; name: string }>(
      `SELECT n.nspname AS schema, c.relname AS name FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid
         JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE p.pubname = $1 LIMIT ${LIMITS.tablesPerPublicationStatement}`,
      [name],
    );
    if (some.length < LIMITS.tablesPerPublicationStatement) break;
    const list = some.map((table) => `ONLY ${quoteName(table.schema, table.name)}`).join(', ');
    await source.query(`ALTER PUBLICATION ${quoteIdent(name)} DROP TABLE ${list}`);
  }
  await source.query(`DROP PUBLICATION IF EXISTS ${quoteIdent(name)}`);
}

/** Takes every table out of it that is not one of `keep`, oids. */
export async function narrowPublication(source: Session, name: string, keep: ReadonlySet<number>): Promise<void> {
  for (;;) {
    const some = await source.query<{ schema: string; name: string }>(
      `SELECT n.nspname AS schema, c.relname AS name FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid
         JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE p.pubname = $1 AND c.oid <> ALL ($2::oid[]) LIMIT ${LIMITS.tablesPerPublicationStatement}`,
      [name, [...keep]],
    );
    if (some.length === 0) return;
    const list = some.map((table) => `ONLY ${quoteName(table.schema, table.name)}`).join(', ');
    await source.query(`ALTER PUBLICATION ${quoteIdent(name)} DROP TABLE ${list}`);
  }
}

/** Of these tables, those that are there and of which no publication of these names publishes all changes. */
export async function notPublished(
  source: Session,
  names: readonly string[],
  oids: readonly number[],
): Promise<{ schema: string; name: string }[]> {
  return source.query(
    `SELECT n.nspname AS schema, c.relname AS name
       FROM unnest($2::oid[]) AS t (oid) JOIN pg_class c ON c.oid = t.oid JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE NOT EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
        WHERE r.prrelid = c.oid AND p.pubname = ANY ($1) AND p.pubinsert AND p.pubupdate AND p.pubdelete
          AND coalesce((to_jsonb(p) ->> 'pubtruncate')::bool, true)) -- since 11
      ORDER BY 1, 2`,
    [names, oids],
  );
}

/** Drops those whose names begin so. */
export async function dropPublications(source: Session, prefix: string): Promise<void> {
  const rows = await source.query<{ name: string }>(
    'SELECT pubname AS name FROM pg_publication WHERE left(pubname, length($1)) = $1',
    [prefix],
  );
  for (const { name } of rows) await dropPublication(source, name);
}

/** Oids of the tables that the publication lists. */
export async function publishedTables(source: Session, name: string): Promise<Set<number>> {
  const rows = await source.query<{ oid: number }>(
    `SELECT r.prrelid::bigint::float8 AS oid FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid WHERE p.pubname = $1`,
    [name],
  );
  return new Set(rows.map(({ oid }) => oid));
}
