import { LEDGER_SCHEMA } from '../contract.ts';
import type { Session } from './connection.ts';

export interface Column {
  name: string;
  /** For people and DDL, with its modifier. */
  type: string;
  /** Without a schema, since an extension may be in another one on the other server. */
  comparable: string;
  notNull: boolean;
  /** '' or as in pg_attribute: s, v. */
  generated: string;
  /** '' or as in pg_attribute: a, d. */
  identity: string;
  /** The expression of a default, or of a generated column. */
  default: string | null;
}

/** What replication depends on, of an ordinary table or a leaf partition. */
export interface TableDefinition {
  oid: number;
  schema: string;
  name: string;
  columns: Column[];
  /** Columns by which rows are told apart, sorted; `FULL`; null: they are not. */
  rowIdentity: string | null;
  /** Of which table it is a partition. */
  partitionOf: string | null;
}

/** `tables`: a condition on `c`, pg_class, and `n`, its schema. */
const definitionsSql = (version: number, tables: string): string => `
SELECT c.oid::bigint::float8 AS oid, n.nspname AS schema, c.relname AS name,
  coalesce((SELECT jsonb_agg(jsonb_build_object(
      'name', a.attname, 'type', format_type(a.atttypid, a.atttypmod), 'comparable', concat(t.typname, ' ', a.atttypmod),
      'notNull', a.attnotnull, 'generated', ${version >= 120000 ? 'a.attgenerated' : "''"}, 'identity', a.attidentity,
      'default', pg_get_expr(d.adbin, d.adrelid)) ORDER BY a.attnum)
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '[]') AS columns,
  CASE c.relreplident WHEN 'f' THEN 'FULL' WHEN 'n' THEN NULL ELSE (
    SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attname)
      FROM pg_index x JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = ANY (x.indkey)
     WHERE x.indrelid = c.oid AND x.indisvalid AND x.indimmediate
       AND CASE c.relreplident WHEN 'i' THEN x.indisreplident ELSE x.indisprimary END) END AS "rowIdentity",
  (SELECT format('%I.%I', pn.nspname, p.relname) FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent
     JOIN pg_namespace pn ON pn.oid = p.relnamespace WHERE i.inhrelid = c.oid AND c.relispartition) AS "partitionOf"
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND ${tables}`;

/** What is told apart by one line: equal lines, equal definitions, but for defaults, whose text depends on the version. */
const fingerprintSql = (version: number, tables: string): string => `
SELECT oid, schema, name, md5(concat(
    (SELECT jsonb_agg(k - 'default' - 'type' ORDER BY k ->> 'name') FROM jsonb_array_elements(columns) k),
    '|', "rowIdentity", '|', "partitionOf")) AS fingerprint
FROM (${definitionsSql(version, tables)}) AS definition`;

export interface Fingerprint {
  oid: number;
  schema: string;
  name: string;
  fingerprint: string;
}

/** Of these tables, oids, those that are still there, under the names that they have now. */
export const readFingerprints = (session: Session, oids: readonly number[]): Promise<Fingerprint[]> =>
  session.query(fingerprintSql(session.version, 'c.oid = ANY ($1::oid[])'), [oids]);

/** Of all tables of the target that could be one that is replicated. */
export const readTargetFingerprints = (target: Session): Promise<Fingerprint[]> =>
  target.query(fingerprintSql(target.version, `n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', $1)`), [
    LEDGER_SCHEMA,
  ]);

export const readDefinitions = (session: Session, oids: readonly number[]): Promise<TableDefinition[]> =>
  session.query(definitionsSql(session.version, 'c.oid = ANY ($1::oid[])'), [oids]);
