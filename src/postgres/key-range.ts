import { LEDGER_SCHEMA, rangeName } from '../contract.ts';
import { LIMITS } from '../domain/limits.ts';
import type { Session } from './connection.ts';
import { displayName, quoteIdent, quoteLiteral, quoteName } from './identifier.ts';
import type { Table } from './scope.ts';
import { maySubscribe } from './subscription-commands.ts';

/**
 * A table that is too large for one snapshot's life is copied in ranges of its key, each with a publication of its own
 * that has been there since before the first slot. After a loss the finished ranges stay with the generation that
 * copied them, and the rest goes to the next one: a row that moves between two of them is a DELETE in one stream and an
 * INSERT in the other.
 */
export interface KeyRange {
  /** Oid of the table on the source. */
  relation: number;
  schema: string;
  name: string;
  /** Of the table's ranges, from 0. */
  number: number;
  publication: string;
  /** What COPY and the publication select by. */
  condition: string;
}

/** Types of a fixed size whose order is the same on every server. */
export const CUTTABLE_TYPES = ['int2', 'int4', 'int8', 'uuid', 'date', 'timestamp', 'timestamptz'];

/** Publications with row filters are there since this version. */
const SINCE = 150000;

interface KeyFacts {
  oid: number;
  /** The first column of what tells rows apart; null without one. */
  column: string | null;
  type: string | null;
  /** Values may be stored out of line, and an UPDATE that leaves them alone does not log them. */
  toasted: boolean;
  /** Of another unique index, in which one stream could meet a row that the other has yet to take away. */
  unique: string | null;
}

/** By which column a table can be cut, or, as half a sentence, why not. */
export type Cut = { column: string } | { obstacle: string };

/** Of these tables, by their oids. `target`: whose role subscribes. */
export async function readCuts(source: Session, target: Session, tables: readonly Table[]): Promise<Map<number, Cut>> {
  const obstacle = await obstacleOfServers(source, target);
  if (obstacle !== null) return new Map(tables.map(({ oid }) => [oid, { obstacle }]));
  const facts = await source.query<KeyFacts>(
    `SELECT c.oid::bigint::float8 AS oid, a.attname AS column,
            CASE y.typnamespace WHEN 'pg_catalog'::regnamespace THEN y.typname ELSE format_type(y.oid, NULL) END AS type,
            c.reltoastrelid <> 0 AND c.relreplident <> 'f' AS toasted,
            (SELECT i.relname FROM pg_index u JOIN pg_class i ON i.oid = u.indexrelid
              WHERE u.indrelid = c.oid
                AND (u.indisexclusion OR u.indisunique AND a.attnum <> ALL ((u.indkey::int2[])[0:u.indnkeyatts - 1]))
              ORDER BY 1 LIMIT 1) AS unique
       FROM pg_class c
       LEFT JOIN pg_index x ON x.indrelid = c.oid AND x.indisvalid AND x.indimmediate
         AND CASE c.relreplident WHEN 'i' THEN x.indisreplident WHEN 'n' THEN false ELSE x.indisprimary END
       LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = x.indkey[0]
       LEFT JOIN pg_type y ON y.oid = a.atttypid
      WHERE c.oid = ANY ($1::oid[])`,
    [tables.map(({ oid }) => oid)],
  );
  const byOid = new Map(facts.map((fact) => [fact.oid, fact]));
  return new Map(tables.map((table) => [table.oid, cutOf(table, byOid.get(table.oid))]));
}

async function obstacleOfServers(source: Session, target: Session): Promise<string | null> {
  if (source.version < SINCE || target.version < SINCE) return 'both servers must be PostgreSQL 15 or later';
  if (!(await maySubscribe(target)))
    return 'our role on the target cannot subscribe by itself, and aiven_extras subscribes to one publication only';
  return null;
}

function cutOf({ routeByParent }: Table, fact: KeyFacts | undefined): Cut {
  if (routeByParent) return { obstacle: 'its rows are routed by the target' };
  if (fact?.column == null) return { obstacle: 'it has no primary key or other index as its replica identity' };
  const { column, type, toasted, unique } = fact;
  if (!CUTTABLE_TYPES.includes(type ?? ''))
    return {
      obstacle: `its key begins with column ${quoteIdent(column)} of type ${type ?? 'unknown'}, and only ${CUTTABLE_TYPES.join(', ')} can be cut`,
    };
  if (toasted)
    return {
      obstacle:
        'it may have values that are stored out of line, which would be missing where an UPDATE moves a row to another range: REPLICA IDENTITY FULL mends that',
    };
  if (unique !== null)
    return {
      obstacle: `index ${quoteIdent(unique)} is unique or an exclusion without column ${quoteIdent(column)}, and two streams could meet in it`,
    };
  return { column };
}

/** Cuts the tables above `rangeBytes` that can be, by a sample of their keys. `id`: of the migration. */
export async function cutTables(
  source: Session,
  target: Session,
  id: string,
  tables: readonly Table[],
  rangeBytes: number,
): Promise<KeyRange[]> {
  const large = tables.filter(({ bytes }) => bytes > rangeBytes);
  if (large.length === 0) return [];
  const cuts = await readCuts(source, target, large);
  const ranges: KeyRange[] = [];
  for (const table of large) {
    const cut = cuts.get(table.oid);
    if (cut === undefined || 'obstacle' in cut) continue;
    const most = Math.min(Math.ceil(table.bytes / rangeBytes), LIMITS.rangesPerTable);
    const conditions = await cutByKey(source, table, cut.column, most);
    // All rows have one key, or there was none to be seen.
    if (conditions.length < 2) continue;
    for (const [number, condition] of conditions.entries())
      ranges.push({
        relation: table.oid,
        schema: table.schema,
        name: table.name,
        number,
        publication: rangeName(id, ranges.length),
        condition,
      });
  }
  return ranges;
}

/** At most `most` conditions of about as many rows each, by a sample: every key is in exactly one of them. */
export async function cutByKey(
  source: Session,
  table: Pick<Table, 'schema' | 'name' | 'pages'>,
  column: string,
  most: number,
): Promise<string[]> {
  const fractions = Array.from({ length: most - 1 }, (_, index) => (index + 1) / most);
  const percent = Math.min(100, (100 * LIMITS.rangeSamplePages) / Math.max(table.pages, 1));
  const sample = await source.one<{ bounds: string[] | null }>(
    `SELECT (percentile_disc($1::float8[]) WITHIN GROUP (ORDER BY ${quoteIdent(column)}))::text[] AS bounds
       FROM ONLY ${quoteName(table.schema, table.name)} TABLESAMPLE SYSTEM (${percent})`,
    [fractions],
  );
  const bounds = [...new Set(sample.bounds ?? [])];
  const name = quoteIdent(column);
  // The first and the last have no end.
  return [null, ...bounds].map((from, index) => {
    const until = bounds[index];
    return [
      ...(from === null ? [] : [`${name} >= ${quoteLiteral(from)}`]),
      ...(until === undefined ? [] : [`${name} < ${quoteLiteral(until)}`]),
    ].join(' AND ');
  });
}

/** Books them for the first generation, inside the caller's transaction. */
export async function writeRanges(target: Session, ranges: readonly KeyRange[]): Promise<void> {
  await target.query(
    `INSERT INTO ${LEDGER_SCHEMA}.key_range (relation, number, publication, condition, generation)
     SELECT relation, number, publication, condition, 0
       FROM json_to_recordset($1) AS r (relation bigint, number int, publication text, condition text)`,
    [JSON.stringify(ranges)],
  );
}

/** Tables, by their oids on the source, that are copied in ranges. */
export async function rangedTables(target: Session): Promise<Set<number>> {
  const rows = await target.query<{ relation: number }>(
    `SELECT DISTINCT relation::float8 AS relation FROM ${LEDGER_SCHEMA}.key_range`,
  );
  return new Set(rows.map(({ relation }) => relation));
}

/** Of each table, the ranges that this generation is to copy, or has copied. */
export async function rangesOf(
  target: Session,
  generation: number,
): Promise<Map<number, { number: number; condition: string; of: number }[]>> {
  const rows = await target.query<{ relation: number; number: number; condition: string; of: number }>(
    `SELECT * FROM (
       SELECT relation::float8 AS relation, number, condition, generation,
              (count(*) OVER (PARTITION BY relation))::float8 AS of FROM ${LEDGER_SCHEMA}.key_range) AS range
      WHERE generation = $1 ORDER BY relation, number`,
    [generation],
  );
  const ranges = new Map<number, { number: number; condition: string; of: number }[]>();
  for (const { relation, ...range } of rows) ranges.set(relation, [...(ranges.get(relation) ?? []), range]);
  return ranges;
}

/** By which publications each generation that has a slot is subscribed to. */
export async function publicationsOf(target: Session): Promise<Map<string, string[]>> {
  const rows = await target.query<{ name: string; publications: string[] }>(
    `SELECT g.name, g.name || array(
              SELECT publication FROM ${LEDGER_SCHEMA}.key_range k WHERE k.generation = g.number ORDER BY relation, k.number
            ) AS publications
       FROM ${LEDGER_SCHEMA}.generation g WHERE g.slot ORDER BY g.number`,
  );
  return new Map(rows.map(({ name, publications }) => [name, publications]));
}

/** Tables, on the target, whose ranges came with different snapshots, so that several streams write to them. */
export const tablesOfSeveralGenerations = (target: Session): Promise<{ oid: number; schema: string; name: string }[]> =>
  target.query(
    `SELECT r.oid::float8 AS oid, r.target_schema AS schema, r.target_name AS name
       FROM ${LEDGER_SCHEMA}.relation r JOIN ${LEDGER_SCHEMA}.key_range k ON k.relation = r.oid
      GROUP BY r.oid, r.target_schema, r.target_name HAVING count(DISTINCT k.generation) > 1 ORDER BY 1`,
  );

/** What keeps a table's ranges from being replicated as they must be, as a sentence; null when nothing does. */
export async function readRangeDamage(
  source: Session,
  target: Session,
): Promise<{ table: string; message: string } | null> {
  const ranges = await target.query<{ relation: number; publication: string }>(
    `SELECT relation::float8 AS relation, publication FROM ${LEDGER_SCHEMA}.key_range`,
  );
  if (ranges.length === 0) return null;
  const several = (await tablesOfSeveralGenerations(target)).map(({ oid }) => oid);
  const [damaged] = await source.query<{ schema: string; name: string; unlisted: string | null }>(
    `SELECT n.nspname AS schema, c.relname AS name, CASE WHEN r.oid IS NULL THEN k.publication END AS unlisted
       FROM unnest($1::oid[], $2::text[]) AS k (oid, publication)
       JOIN pg_class c ON c.oid = k.oid JOIN pg_namespace n ON n.oid = c.relnamespace
       LEFT JOIN pg_publication p ON p.pubname = k.publication
       LEFT JOIN pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = c.oid
      WHERE r.oid IS NULL OR c.oid = ANY ($3::oid[]) AND c.reltoastrelid <> 0 AND c.relreplident <> 'f'
      ORDER BY 1, 2, 3 LIMIT 1`,
    [ranges.map(({ relation }) => relation), ranges.map(({ publication }) => publication), several],
  );
  if (damaged === undefined) return null;
  const table = displayName(damaged.schema, damaged.name);
  const message =
    damaged.unlisted === null
      ? `Table ${table} is replicated in ranges of its key, and its replica identity is not FULL any more, so rows that an UPDATE moved to another range have arrived without their values that are stored out of line.`
      : `Table ${table} was taken out of publication ${damaged.unlisted} on the source, so changes of that range of its key are lost.`;
  return { table, message };
}
