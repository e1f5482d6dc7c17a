import { LIMITS } from '../domain/limits.ts';
import { displayName, quoteIdent } from '../postgres/identifier.ts';
import type { TablePattern } from '../postgres/table-pattern.ts';
import { parseTablePatterns } from '../postgres/table-pattern.ts';
import type { Named } from './catalog.ts';
import { USER_SCHEMA } from './catalog.ts';
import type { DatabaseContext, Seen } from './check.ts';

/** The tables with rows below a partitioned one, or the table itself. */
const leavesOf = (oid: string): string => `WITH RECURSIVE below (oid) AS (
  SELECT ${oid} UNION ALL SELECT i.inhrelid FROM below b JOIN pg_inherits i ON i.inhparent = b.oid)
  SELECT leaf.oid, leaf.relname, leaf.relnamespace FROM below b JOIN pg_class leaf ON leaf.oid = b.oid AND leaf.relkind = 'r'`;

const LISTS = ['include', 'exclude'] as const;

/** The entries of both lists that are about this database. */
const entries = ({ plan, database }: DatabaseContext): { list: (typeof LISTS)[number]; pattern: TablePattern }[] =>
  LISTS.flatMap((list) =>
    parseTablePatterns(plan.tables[list].filter((text) => isAbout(database, text))).map((pattern) => ({
      list,
      pattern,
    })),
  );

/** A name of three parts is about one database only. */
function isAbout(database: string, text: string): boolean {
  const first = /^\s*((?:"(?:[^"]|"")*")|[^."\s]+)\.(?:"(?:[^"]|"")*"|[^."\s]+)\./.exec(text)?.[1];
  return first === undefined || parseTablePatterns([first]).some((pattern) => pattern.matches('', '', database));
}

/** A misspelt name would leave a table behind, or bring one that was not meant. */
export async function tableFilters(context: DatabaseContext): Promise<Seen[]> {
  const wanted = entries(context);
  if (wanted.length === 0) return [];
  const { source, database } = context;
  const relations = await source.query<Named>(
    `SELECT n.nspname AS schema, c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND ${USER_SCHEMA}`,
  );
  return wanted
    .filter(({ pattern }) => !relations.some(({ schema, name }) => pattern.matches(database, schema, name)))
    .map(({ list, pattern: { text } }) => ({
      object: text,
      message: `"tables.${list}" names ${text}, but database ${quoteIdent(database)} has no such table.`,
      remedy: 'Correct the name, or put the database in front of it: database.schema.table.',
      severity: list === 'include' ? 'error' : 'warning',
    }));
}

/** A partitioned table has no rows of its own; whoever names it means those of its partitions. */
export async function partitionedFilters(context: DatabaseContext): Promise<Seen[]> {
  const wanted = entries(context);
  if (wanted.length === 0) return [];
  const { source, database } = context;
  const parents = await source.query<Named & { leaves: Named[] }>(
    `SELECT n.nspname AS schema, c.relname AS name,
            (SELECT coalesce(json_agg(json_build_object('schema', (SELECT nspname FROM pg_namespace WHERE oid = l.relnamespace), 'name', l.relname) ORDER BY l.relname), '[]')
               FROM (${leavesOf('c.oid')}) AS l) AS leaves
       FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'p' AND ${USER_SCHEMA} ORDER BY 1, 2`,
  );
  return parents.flatMap(({ schema, name, leaves }) => {
    const entry = wanted.find(({ pattern }) => pattern.matches(database, schema, name));
    if (entry === undefined) return [];
    const some = leaves.slice(0, LIMITS.namesInMessage).map((leaf) => displayName(leaf.schema, leaf.name));
    const more = leaves.length > some.length ? ` and ${leaves.length - some.length} more` : '';
    const message = `"tables.${entry.list}" names ${entry.pattern.text}, a partitioned table; its ${leaves.length} partitions are meant: ${some.join(', ')}${more}.`;
    return [{ object: displayName(schema, name), message }];
  });
}

/** A foreign key to a table that stays behind finds none of its rows there. */
export async function keysToExcluded({ source, tables }: DatabaseContext): Promise<Seen[]> {
  const rows = await source.query<Named & { key: string; schema2: string; name2: string }>(
    `SELECT n.nspname AS schema, c.relname AS name, k.conname AS key, m.nspname AS schema2, r.relname AS name2
       FROM pg_constraint k
       JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
       JOIN pg_class r ON r.oid = k.confrelid JOIN pg_namespace m ON m.oid = r.relnamespace
      WHERE k.contype = 'f' AND k.conrelid = ANY ($1::oid[]) AND NOT k.confrelid = ANY ($1::oid[])
        AND EXISTS (SELECT FROM (${leavesOf('r.oid')}) AS l WHERE NOT l.oid = ANY ($1::oid[]))
        -- A key to a partitioned table has another constraint for each of its partitions.
        AND NOT EXISTS (SELECT FROM pg_constraint p WHERE p.oid::text = to_jsonb(k) ->> 'conparentid' AND p.conrelid = k.conrelid)
      ORDER BY 1, 2, 3`,
    [tables.map(({ oid }) => oid)],
  );
  return rows.map(({ schema, name, key, schema2, name2 }) => ({
    object: displayName(schema, name),
    message: `Foreign key ${quoteIdent(key)} leads to ${displayName(schema2, name2)}, which the filter leaves out, so its rows will not be there.`,
    remedy: `Put ${displayName(schema2, name2)} into "tables.include" too, or drop the foreign key.`,
  }));
}
