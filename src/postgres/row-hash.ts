import type { Session } from './connection.ts';
import { quoteIdent, quoteName } from './identifier.ts';

/** What decides how rows are hashed: both sides must do it alike. */
export interface HashMethod {
  /** false: by md5 of UTF-8, for servers before 11 and for databases of different encodings. Half as fast. */
  native: boolean;
  /** Before 12, floats were printed by another algorithm: then 15 digits of both are compared. */
  shortFloats: boolean;
}

export async function chooseHashMethod(source: Session, target: Session): Promise<HashMethod> {
  const encodings = await Promise.all(
    [source, target].map((session) =>
      session.one<{ name: string }>(`SELECT current_setting('server_encoding') AS name`),
    ),
  );
  const oldest = Math.min(source.version, target.version);
  return { native: oldest >= 110000 && encodings[0]?.name === encodings[1]?.name, shortFloats: oldest < 120000 };
}

/** Rows of one table, or of a part of it. */
export interface RowSet {
  schema: string;
  name: string;
  /** With the rows of its partitions. */
  descend: boolean;
  /** Compare these columns, by name; null: the whole row, generated columns too. */
  columns: readonly string[] | null;
  /** `WHERE …`, or nothing */
  filter: string;
}

export interface RowHash {
  rows: number;
  /** Sum over all rows of a 64-bit hash of the row's text: the same in any order, and another one when a row is there twice. */
  sum: bigint;
}

/** One answer for each set, in one round trip. */
export async function hashRows(session: Session, sets: readonly RowSet[], method: HashMethod): Promise<RowHash[]> {
  const queries = sets.map((set, index) => hashQuery(set, index, method));
  const rows = await session.query<{ rows: number; sum: string }>(`${queries.join('\nUNION ALL ')} ORDER BY place`);
  return rows.map((row) => ({ rows: row.rows, sum: BigInt(row.sum) }));
}

function hashQuery(set: RowSet, place: number, method: HashMethod): string {
  return `SELECT ${place} AS place, count(*)::float8 AS rows, coalesce(sum(${rowHash(set, method)}), 0)::text AS sum
    FROM ${set.descend ? '' : 'ONLY '}${quoteName(set.schema, set.name)} AS r ${set.filter}`;
}

/** Of the row `r`, as SQL. */
export function rowHash({ columns }: Pick<RowSet, 'columns'>, method: HashMethod): string {
  // `r.*` is the row, whatever its columns are called; `r` alone would be a column of that name.
  const row = columns === null ? '(r.*)' : `ROW(${columns.map((column) => `r.${quoteIdent(column)}`).join(', ')})`;
  return textHash(`${row}::text`, method);
}

/** 64 bits of a text, as SQL. */
export const textHash = (text: string, { native }: HashMethod): string =>
  native
    ? `hashtextextended(${text} COLLATE "C", 0)`
    : `('x' || left(md5(convert_to(${text}, 'UTF8')), 16))::bit(64)::bigint`;

/** Cuts a table into ranges of pages; one range without limits when it is small or the server is older than 14. */
export function pageRanges(version: number, pages: number, pagesPerRange: number): string[] {
  const count = version >= 140000 ? Math.ceil(pages / pagesPerRange) : 1;
  if (count <= 1) return [''];
  return Array.from({ length: count }, (_, index) => {
    const end = index === count - 1 ? '' : ` AND r.ctid < '(${(index + 1) * pagesPerRange},0)'`;
    return `WHERE r.ctid >= '(${index * pagesPerRange},0)'${end}`;
  });
}
