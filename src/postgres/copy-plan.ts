import { LEDGER_SCHEMA } from '../contract.ts';
import { LIMITS } from '../domain/limits.ts';
import type { ColumnType } from './column-format.ts';
import { isBinaryStable } from './column-format.ts';
import type { Session } from './connection.ts';
import { displayName } from './identifier.ts';
import type { Table } from './scope.ts';

/** What decides how tables are cut into units; tests make it small. */
export interface CopySizes {
  tinyTableBytes: number;
  splitTableBytes: number;
  chunkBytes: number;
}

export interface PlannedRelation {
  oid: number;
  schema: string;
  name: string;
  target_schema: string;
  target_name: string;
  columns: string[];
  format: 'binary' | 'text';
  condition: string | null;
  published: boolean;
  bytes: number;
  pages: number;
  filenode: string;
  tiny: boolean;
  split: boolean;
  /** Those that this generation copies, of a table that is cut into ranges of its key; else null. */
  ranges: readonly PlannedRange[] | null;
}

export interface PlannedRange {
  number: number;
  condition: string;
  /** How many the table has. */
  of: number;
}

export interface PlannedUnit {
  relation: number;
  label: string;
  first_page: number | null;
  end_page: number | null;
  key_range: number | null;
  tiny: boolean;
  bytes: number;
}

interface ColumnRow {
  relation: number;
  name: string;
  type: number;
}

/** Columns in order, without generated ones: the target computes those. Under the caller's snapshot. */
export async function readColumns(source: Session, oids: readonly number[]): Promise<Map<number, ColumnRow[]>> {
  const rows = await source.query<ColumnRow>(
    `SELECT attrelid AS relation, attname AS name, atttypid AS type FROM pg_attribute
      WHERE attrelid = ANY ($1::oid[]) AND attnum > 0 AND NOT attisdropped ${source.version >= 120000 ? `AND attgenerated = ''` : ''}
      ORDER BY attrelid, attnum`,
    [oids],
  );
  const columns = new Map<number, ColumnRow[]>(oids.map((oid) => [oid, []]));
  for (const row of rows) columns.get(row.relation)?.push(row);
  return columns;
}

/** The types of those columns, and what these are made of. */
export async function readColumnTypes(source: Session, oids: readonly number[]): Promise<Map<number, ColumnType>> {
  const multirange = source.version >= 140000 ? 'OR r.rngmultitypid = y.oid' : '';
  const rows = await source.query<ColumnType>(
    `WITH RECURSIVE type AS (
       SELECT unnest($1::oid[]) AS oid
       UNION
       SELECT part FROM type JOIN pg_type y ON y.oid = type.oid LEFT JOIN pg_range r ON r.rngtypid = y.oid ${multirange},
              unnest(ARRAY[y.typbasetype, y.typelem, r.rngsubtype]) AS part
        WHERE part <> 0)
     SELECT y.oid, y.typname AS name, y.typtype AS kind, y.typbasetype AS base, coalesce(e.oid, 0) AS element,
            coalesce(r.rngsubtype, 0) AS subtype
       FROM type JOIN pg_type y ON y.oid = type.oid
       LEFT JOIN pg_type e ON e.oid = y.typelem AND e.typarray = y.oid
       LEFT JOIN pg_range r ON r.rngtypid = y.oid ${multirange}`,
    [oids],
  );
  return new Map(rows.map((row) => [row.oid, row]));
}

/**
 * Decides for each table how it is copied. An older target gets text: what it does not know, such as an infinite
 * interval before 17, is then an error and not another value.
 */
export async function planRelations(
  source: Session,
  targetVersion: number,
  tables: readonly Table[],
  { replication, sizes, ranges }: { replication: boolean; sizes: CopySizes; ranges: Map<number, PlannedRange[]> },
): Promise<PlannedRelation[]> {
  const columns = await readColumns(
    source,
    tables.map(({ oid }) => oid),
  );
  const types = await readColumnTypes(source, [...new Set([...columns.values()].flat().map(({ type }) => type))]);
  const toOlder = Math.floor(targetVersion / 10_000) < Math.floor(source.version / 10_000);
  return tables.map((table) => {
    const listed = columns.get(table.oid) ?? [];
    const route = table.routeByParent ? table.parent : null;
    // By a condition, even an empty one: CREATE EXTENSION filled the table already, so it is not to be emptied.
    const condition = table.extension ? (table.extensionCondition ?? '') : null;
    const own = ranges.get(table.oid) ?? null;
    const plain = route === null && condition === null && own === null;
    return {
      oid: table.oid,
      schema: table.schema,
      name: table.name,
      target_schema: route?.schema ?? table.schema,
      target_name: route?.name ?? table.name,
      columns: listed.map(({ name }) => name),
      format:
        !toOlder && listed.every(({ type }) => isBinaryStable(type, types)) ? ('binary' as const) : ('text' as const),
      condition,
      published: replication && table.persistence === 'p' && !table.extension,
      bytes: table.bytes,
      pages: table.pages,
      filenode: table.filenode,
      tiny: route === null && own === null && table.bytes < sizes.tinyTableBytes,
      // The planner finds a range of ctids without reading the whole table since 14.
      split:
        plain &&
        source.version >= 140000 &&
        table.bytes > sizes.splitTableBytes &&
        pagesPerChunk(table, sizes) < table.pages,
      ranges: own,
    };
  });
}

const pagesPerChunk = ({ bytes, pages }: { bytes: number; pages: number }, sizes: CopySizes): number =>
  Math.max(1, Math.ceil((pages * sizes.chunkBytes) / bytes));

export function planUnits(relations: readonly PlannedRelation[], sizes: CopySizes): PlannedUnit[] {
  return relations.flatMap((relation): PlannedUnit[] => {
    const { oid, schema, name, tiny, bytes, pages, ranges } = relation;
    const label = displayName(schema, name);
    const whole = { relation: oid, label, first_page: null, end_page: null, key_range: null, tiny, bytes };
    if (ranges !== null)
      return ranges.map(({ number, of }) => ({
        ...whole,
        label: `${label} (range ${number + 1} of ${of})`,
        key_range: number,
        bytes: Math.round(bytes / of),
      }));
    if (!relation.split) return [whole];
    const step = pagesPerChunk(relation, sizes);
    const chunks = Math.ceil(pages / step);
    return Array.from({ length: chunks }, (_, index) => {
      const first = index * step;
      // The last range has no end: how many pages there are is only known while nobody writes.
      const end = index === chunks - 1 ? null : first + step;
      return {
        ...whole,
        label: `${label} (part ${index + 1} of ${chunks})`,
        first_page: first,
        end_page: end,
        bytes: Math.round((bytes * ((end ?? pages) - first)) / pages),
      };
    });
  });
}

/** Writes relations and units of a generation, inside the caller's transaction. */
export async function writeCopyPlan(
  target: Session,
  generation: number,
  relations: readonly PlannedRelation[],
  units: readonly PlannedUnit[],
): Promise<void> {
  for (const rows of inPortions(relations))
    await target.query(
      `INSERT INTO ${LEDGER_SCHEMA}.relation (oid, schema, name, target_schema, target_name, columns, format, condition, published, generation, bytes, pages, filenode)
       SELECT oid, schema, name, target_schema, target_name, columns, format, condition, published, $1, bytes, pages, filenode
         FROM json_to_recordset($2) AS r (oid bigint, schema text, name text, target_schema text, target_name text,
              columns text[], format text, condition text, published bool, bytes bigint, pages bigint, filenode text)`,
      [generation, JSON.stringify(rows)],
    );
  for (const rows of inPortions(units))
    await target.query(
      `INSERT INTO ${LEDGER_SCHEMA}.unit (generation, kind, relation, label, first_page, end_page, key_range, tiny, bytes)
       SELECT $1, 'copy', relation, label, first_page, end_page, key_range, tiny, bytes
         FROM json_to_recordset($2) AS u (relation bigint, label text, first_page bigint, end_page bigint, key_range int, tiny bool, bytes bigint)`,
      [generation, JSON.stringify(rows)],
    );
  await target.query(
    `INSERT INTO ${LEDGER_SCHEMA}.unit (generation, kind, relation, label, tiny, bytes, position)
     SELECT $1, 'index', e.relation, e.label, tiny.oid IS NOT NULL, r.bytes, e.position
       FROM ${LEDGER_SCHEMA}.entry e JOIN ${LEDGER_SCHEMA}.relation r ON r.oid = e.relation AND r.generation = $1
       LEFT JOIN unnest($2::bigint[]) AS tiny (oid) ON tiny.oid = r.oid
      WHERE e.stage = 'index' AND e.state = 'todo' ORDER BY e.position`,
    [generation, relations.filter(({ tiny }) => tiny).map(({ oid }) => oid)],
  );
  // One for every table, with keys or without: exactly one unit is the last, and that one runs ANALYZE.
  await target.query(
    `INSERT INTO ${LEDGER_SCHEMA}.unit (generation, kind, relation, label, bytes)
     SELECT $1, 'key', oid, label, bytes FROM unnest($2::bigint[], $3::text[], $4::bigint[]) AS k (oid, label, bytes)`,
    [
      generation,
      ...transpose(
        relations
          .filter(({ tiny }) => !tiny)
          .map(({ oid, schema, name, bytes }) => [oid, displayName(schema, name), bytes]),
      ),
    ],
  );
}

const transpose = (rows: readonly (readonly [number, string, number])[]): [number[], string[], number[]] => [
  rows.map(([oid]) => oid),
  rows.map(([, label]) => label),
  rows.map(([, , bytes]) => bytes),
];

function* inPortions<T>(rows: readonly T[]): Generator<readonly T[]> {
  for (let start = 0; start < rows.length; start += LIMITS.ledgerRowsPerInsert)
    yield rows.slice(start, start + LIMITS.ledgerRowsPerInsert);
}
