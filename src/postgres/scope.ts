import type { Plan } from '../domain/plan.ts';
import { LEDGER_SCHEMA } from '../contract.ts';
import type { Session } from './connection.ts';
import { parseTablePatterns } from './table-pattern.ts';

/** A relation that holds rows of its own: an ordinary table or a leaf partition. */
export interface Table {
  oid: number;
  schema: string;
  name: string;
  kind: 'r';
  /** p: permanent, u: unlogged. */
  persistence: 'p' | 'u';
  /** Of the heap with its TOAST. */
  bytes: number;
  /** Blocks of the heap; ctid ranges are made of them. */
  pages: number;
  /** `relfilenode` as the session's snapshot sees it. */
  filenode: string;
  /** Extension configuration tables: which rows are the user's ('' = all); null for a table of no extension. */
  extensionCondition: string | null;
  extension: boolean;
  /** Whether UPDATE and DELETE can be replicated. */
  hasReplicaIdentity: boolean;
  /** The topmost partitioned ancestor. */
  parent: { schema: string; name: string } | null;
  /** Some ancestor is partitioned by the hash of a type whose hash depends on OIDs: rows belong elsewhere on the target. */
  routeByParent: boolean;
}

/** Before 12 every WITH is materialized, and the word is not known. */
const tablesSql = (version: number): string => `
WITH RECURSIVE
-- Enums and reg* types hash by OID, and so does what is made of them.
made_of(part, whole) AS ${version >= 120000 ? 'MATERIALIZED' : ''} (
  SELECT t.typbasetype, t.oid FROM pg_type t WHERE t.typbasetype <> 0
  UNION ALL SELECT t.typelem, t.oid FROM pg_type t WHERE t.typelem <> 0
  UNION ALL SELECT r.rngsubtype, r.rngtypid FROM pg_range r
  UNION ALL SELECT a.atttypid, c.reltype FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    WHERE a.attnum > 0 AND c.reltype <> 0 AND c.oid >= 16384
),
by_oid(oid) AS (
  SELECT t.oid FROM pg_type t WHERE t.typtype = 'e' OR t.typname LIKE 'reg%' AND t.typnamespace = 'pg_catalog'::regnamespace
  UNION
  SELECT m.whole FROM by_oid b JOIN made_of m ON m.part = b.oid
),
hash_by_oid AS (
  SELECT p.partrelid FROM pg_partitioned_table p
  WHERE p.partstrat = 'h' AND EXISTS (
    SELECT FROM pg_attribute a WHERE a.attrelid = p.partrelid AND a.atttypid IN (SELECT oid FROM by_oid)
      AND (a.attnum = ANY (p.partattrs::int2[]) OR p.partexprs IS NOT NULL))
),
ancestors(leaf, ancestor, depth) AS (
  SELECT i.inhrelid, i.inhparent, 1 FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE c.relispartition
  UNION ALL
  SELECT a.leaf, i.inhparent, a.depth + 1 FROM ancestors a JOIN pg_inherits i ON i.inhrelid = a.ancestor
),
lineage AS (
  SELECT a.leaf,
    (array_agg(n.nspname::text ORDER BY a.depth DESC))[1] AS top_schema,
    (array_agg(c.relname::text ORDER BY a.depth DESC))[1] AS top_name,
    json_agg(json_build_array(n.nspname, c.relname)) AS names,
    bool_or(a.ancestor IN (SELECT partrelid FROM hash_by_oid)) AS by_oid
  FROM ancestors a JOIN pg_class c ON c.oid = a.ancestor JOIN pg_namespace n ON n.oid = c.relnamespace
  GROUP BY a.leaf
),
configuration AS (
  SELECT unnest(e.extconfig) AS oid, unnest(e.extcondition) AS condition FROM pg_extension e
)
SELECT c.oid, n.nspname AS schema, c.relname AS name, c.relpersistence AS persistence,
  coalesce(pg_table_size(c.oid), 0)::float8 AS bytes,
  coalesce(pg_relation_size(c.oid) / current_setting('block_size')::int, 0)::float8 AS pages,
  c.relfilenode::text AS filenode,
  d.objid IS NOT NULL AS extension, k.condition AS condition, k.oid IS NOT NULL AS configuration,
  CASE c.relreplident WHEN 'f' THEN true WHEN 'n' THEN false
    ELSE EXISTS (SELECT FROM pg_index x WHERE x.indrelid = c.oid AND x.indisvalid AND x.indimmediate
      AND CASE c.relreplident WHEN 'i' THEN x.indisreplident ELSE x.indisprimary END) END AS identity,
  l.top_schema, l.top_name, coalesce(l.names, '[]') AS ancestors, coalesce(l.by_oid, false) AS by_oid
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN lineage l ON l.leaf = c.oid
LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
LEFT JOIN configuration k ON k.oid = c.oid
WHERE c.relkind = 'r' AND c.relpersistence IN ('p', 'u')
  AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', $1)
ORDER BY c.oid`;

interface Row {
  oid: number;
  schema: string;
  name: string;
  persistence: 'p' | 'u';
  bytes: number;
  pages: number;
  filenode: string;
  extension: boolean;
  condition: string | null;
  configuration: boolean;
  identity: boolean;
  top_schema: string | null;
  top_name: string | null;
  ancestors: [string, string][];
  by_oid: boolean;
}

/**
 * The tables that the plan migrates, as the session's snapshot sees them. Tables of an extension belong to it and
 * come with CREATE EXTENSION, but for the rows that it declares to be the user's (`pg_extension_config_dump`).
 */
export async function listTables(session: Session, plan: Plan, database: string): Promise<Table[]> {
  const rows = await session.query<Row>(tablesSql(session.version), [LEDGER_SCHEMA]);
  const included = parseTablePatterns(plan.tables.include);
  const excluded = parseTablePatterns(plan.tables.exclude);
  const inScope = (row: Row): boolean => {
    if (row.extension && !(row.configuration && plan.extensions.tables)) return false;
    const names: [string, string][] = [[row.schema, row.name], ...row.ancestors];
    const named = (patterns: typeof included) =>
      patterns.some((pattern) => names.some(([schema, name]) => pattern.matches(database, schema, name)));
    return (included.length === 0 || named(included)) && !named(excluded);
  };
  return rows.filter(inScope).map((row) => ({
    oid: row.oid,
    schema: row.schema,
    name: row.name,
    kind: 'r',
    persistence: row.persistence,
    bytes: row.bytes,
    pages: row.pages,
    filenode: row.filenode,
    extensionCondition: row.extension ? (row.condition ?? '') : null,
    extension: row.extension,
    hasReplicaIdentity: row.identity,
    parent: row.top_schema === null || row.top_name === null ? null : { schema: row.top_schema, name: row.top_name },
    routeByParent: row.by_oid,
  }));
}

/** Which tables a publication lists: permanent ones that belong to the user. */
export const isPublished = (table: Table): boolean => table.persistence === 'p' && !table.extension;
