import { displayName, quoteIdent, quoteName } from '../postgres/identifier.ts';
import { isPublished } from '../postgres/scope.ts';
import type { Named } from './catalog.ts';
import type { DatabaseContext, Seen } from './check.ts';

const published = ({ tables }: DatabaseContext) => tables.filter(isPublished);
const oids = (context: DatabaseContext): number[] => published(context).map(({ oid }) => oid);

/** Once such a table is published, the application's own UPDATE and DELETE fail on the source. */
export async function replicaIdentity(context: DatabaseContext): Promise<Seen[]> {
  const without = published(context).filter((table) => !table.hasReplicaIdentity);
  const facts = await context.source.query<{ oid: number; identity: string; key: boolean; deferrable: boolean }>(
    `SELECT c.oid, c.relreplident AS identity,
            coalesce(bool_or(x.indisprimary AND x.indimmediate), false) AS key,
            coalesce(bool_or(x.indisprimary AND NOT x.indimmediate), false) AS deferrable
       FROM pg_class c LEFT JOIN pg_index x ON x.indrelid = c.oid
      WHERE c.oid = ANY ($1::oid[]) GROUP BY c.oid, c.relreplident`,
    [without.map(({ oid }) => oid)],
  );
  const byOid = new Map(facts.map((fact) => [fact.oid, fact]));
  return without.map(({ oid, schema, name }) => {
    const fact = byOid.get(oid);
    const table = `ALTER TABLE ${quoteName(schema, name)} REPLICA IDENTITY`;
    const remedy = fact?.key === true ? `${table} DEFAULT;` : `${table} FULL;`;
    return { object: displayName(schema, name), message: whyNoIdentity(fact), remedy };
  });
}

function whyNoIdentity(fact: { identity: string; deferrable: boolean } | undefined): string {
  const consequence = 'its rows cannot be told apart in UPDATE and DELETE.';
  if (fact?.identity === 'n') return `The table has REPLICA IDENTITY NOTHING, so ${consequence}`;
  if (fact?.identity === 'i')
    return `The index that is the table's replica identity is gone or invalid, so ${consequence}`;
  if (fact?.deferrable === true)
    return `The table's primary key is deferrable, which is no replica identity, so ${consequence}`;
  return `The table has neither a primary key nor another replica identity, so ${consequence}`;
}

/**
 * Without a key, an apply worker finds a row by comparing all columns, and stops with an error where a type has no
 * equality. It is looked for as the server does: a default btree or hash operator class, also of what a type is made of.
 */
export async function fullIdentityTypes(context: DatabaseContext): Promise<Seen[]> {
  const rows = await context.source.query<Named & { column: string; type: string }>(
    `WITH RECURSIVE part (relation, column_name, type) AS (
       SELECT a.attrelid, a.attname, a.atttypid FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        WHERE c.oid = ANY ($1::oid[]) AND c.relreplident = 'f' AND a.attnum > 0 AND NOT a.attisdropped
          AND NOT EXISTS (SELECT FROM pg_index x WHERE x.indrelid = c.oid AND x.indisprimary AND x.indimmediate AND x.indisvalid)
       UNION
       SELECT p.relation, p.column_name, inside.type
         FROM part p JOIN pg_type y ON y.oid = p.type
         JOIN LATERAL (
           SELECT y.typbasetype WHERE y.typtype = 'd'
           UNION ALL SELECT e.oid FROM pg_type e WHERE e.oid = y.typelem AND e.typarray = y.oid
           UNION ALL SELECT m.atttypid FROM pg_attribute m
                      WHERE y.typtype = 'c' AND m.attrelid = y.typrelid AND m.attnum > 0 AND NOT m.attisdropped
         ) AS inside (type) ON true)
     SELECT DISTINCT n.nspname AS schema, c.relname AS name, p.column_name AS column, format_type(y.oid, NULL) AS type
       FROM part p JOIN pg_type y ON y.oid = p.type
       JOIN pg_class c ON c.oid = p.relation JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE y.typtype = 'b' AND NOT EXISTS (SELECT FROM pg_type e WHERE e.oid = y.typelem AND e.typarray = y.oid)
        AND NOT EXISTS (
          SELECT FROM pg_opclass o JOIN pg_am m ON m.oid = o.opcmethod AND m.amname IN ('btree', 'hash')
           WHERE o.opcdefault AND (o.opcintype = y.oid OR EXISTS (
                 SELECT FROM pg_cast k WHERE k.castsource = y.oid AND k.casttarget = o.opcintype
                    AND k.castmethod = 'b' AND k.castcontext = 'i')))
      ORDER BY 1, 2, 3`,
    [oids(context)],
  );
  return rows.map(({ schema, name, column, type }) => ({
    object: displayName(schema, name),
    message: `The table has REPLICA IDENTITY FULL and no primary key, but column ${quoteIdent(column)} holds type ${type}, which has no equality, so an UPDATE or DELETE could not be applied.`,
    remedy: `ALTER TABLE ${quoteName(schema, name)} ADD PRIMARY KEY (…); -- or exclude it`,
  }));
}

/**
 * A generated column is not published, so an identity that holds it cannot be. From 18 on the application's UPDATE is
 * refused then, also for FULL; before, the changes arrive without the column and cannot be applied.
 */
export async function generatedIdentity(context: DatabaseContext): Promise<Seen[]> {
  if (context.source.version < 120000) return [];
  const full = context.source.version >= 180000 ? 'true' : 'false';
  const rows = await context.source.query<Named & { column: string }>(
    `SELECT n.nspname AS schema, c.relname AS name, a.attname AS column
       FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
      WHERE c.oid = ANY ($1::oid[]) AND a.attgenerated <> '' AND NOT a.attisdropped
        AND CASE c.relreplident WHEN 'n' THEN false WHEN 'f' THEN ${full}
              ELSE EXISTS (SELECT FROM pg_index x WHERE x.indrelid = c.oid AND a.attnum = ANY (x.indkey)
                            AND CASE c.relreplident WHEN 'i' THEN x.indisreplident ELSE x.indisprimary END) END
      ORDER BY 1, 2, 3`,
    [oids(context)],
  );
  return rows.map(({ schema, name, column }) => ({
    object: displayName(schema, name),
    message: `Generated column ${quoteIdent(column)} is part of the table's replica identity, but generated columns are not published.`,
    remedy: `ALTER TABLE ${quoteName(schema, name)} REPLICA IDENTITY USING INDEX …; -- with an index of other columns, or exclude it`,
  }));
}

export const routedByParent = (context: DatabaseContext): Promise<Seen[]> =>
  Promise.resolve(
    published(context)
      .filter((table) => table.routeByParent)
      .map(({ schema, name }) => ({
        object: displayName(schema, name),
        message:
          'The partition is chosen by a hash that depends on OIDs, such as that of an enum, so its rows belong to other partitions on the target, where changes to single partitions cannot be applied.',
        remedy: 'Exclude the table, or set "method" to "dump".',
      })),
  );
