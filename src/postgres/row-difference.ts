import { LIMITS } from '../domain/limits.ts';
import type { Session } from './connection.ts';
import { quoteIdent, quoteName } from './identifier.ts';
import type { HashMethod, RowSet } from './row-hash.ts';
import { rowHash, textHash } from './row-hash.ts';

/** Rows are told apart by key; first by groups of keys, so that few rows are fetched of a big table. A power of 2. */
const BUCKETS = 65_536;

/**
 * Keys of rows that are on one side only, or differ, as the server writes them; at most `LIMITS.keysInMessage`. Null for a
 * table without a key: then nothing tells its rows apart. Nobody may write to either side meanwhile.
 */
export async function differingKeys(
  source: Session,
  target: Session,
  [left, right]: readonly [RowSet, RowSet],
  method: HashMethod,
): Promise<string[] | null> {
  const key = await keyColumns(source, left);
  if (key.length === 0) return null;
  const buckets = await Promise.all([hashBuckets(source, left, key, method), hashBuckets(target, right, key, method)]);
  const differing = [...new Set(buckets.flatMap((side) => [...side.keys()]))]
    .filter((bucket) => buckets[0].get(bucket) !== buckets[1].get(bucket))
    .slice(0, LIMITS.keysInMessage);
  const [here, there] = await Promise.all([
    hashKeys(source, left, key, method, differing),
    hashKeys(target, right, key, method, differing),
  ]);
  return [...new Set([...here.keys(), ...there.keys()])]
    .filter((name) => here.get(name) !== there.get(name))
    .slice(0, LIMITS.keysInMessage);
}

/** Of the replica identity, else of the primary key; in the order of the table's columns. What it INCLUDEs is no key. */
export async function keyColumns(session: Session, { schema, name }: RowSet): Promise<string[]> {
  const keys = session.version >= 110000 ? 'i.indkey[0:i.indnkeyatts - 1]' : 'i.indkey';
  const rows = await session.query<{ name: string }>(
    `SELECT a.attname AS name FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (${keys})
      WHERE i.indexrelid = (SELECT indexrelid FROM pg_index WHERE indrelid = $1::regclass AND (indisreplident OR indisprimary)
                             ORDER BY indisreplident DESC LIMIT 1)
      ORDER BY a.attnum`,
    [quoteName(schema, name)],
  );
  return rows.map((row) => row.name);
}

const keyOf = (key: readonly string[]): string =>
  `ROW(${key.map((column) => `r.${quoteIdent(column)}`).join(', ')})::text`;

const from = ({ schema, name, descend, filter }: RowSet): string =>
  `${descend ? '' : 'ONLY '}${quoteName(schema, name)} AS r ${filter}`;

async function hashBuckets(session: Session, set: RowSet, key: readonly string[], method: HashMethod) {
  const rows = await session.query<{ bucket: string; sum: string }>(
    `SELECT (${textHash(keyOf(key), method)} & ${BUCKETS - 1})::text AS bucket, sum(${rowHash(set, method)})::text AS sum
       FROM ${from(set)} GROUP BY 1`,
  );
  return new Map(rows.map(({ bucket, sum }) => [bucket, sum]));
}

async function hashKeys(
  session: Session,
  set: RowSet,
  key: readonly string[],
  method: HashMethod,
  buckets: readonly string[],
) {
  const rows = await session.query<{ key: string; hash: string }>(
    `SELECT * FROM (SELECT ${keyOf(key)} AS key, ${rowHash(set, method)}::text AS hash,
              (${textHash(keyOf(key), method)} & ${BUCKETS - 1})::text AS bucket FROM ${from(set)}) AS found
      WHERE bucket = ANY ($1) ORDER BY key COLLATE "C"`,
    [buckets],
  );
  return new Map(rows.map((row) => [row.key, row.hash]));
}
