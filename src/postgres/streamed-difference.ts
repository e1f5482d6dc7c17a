import { LIMITS } from '../domain/limits.ts';
import type { Session } from './connection.ts';
import { quoteIdent, quoteName } from './identifier.ts';
import { keyColumns } from './row-difference.ts';
import type { HashMethod, RowSet } from './row-hash.ts';
import { rowHash, textHash } from './row-hash.ts';

/** Rows with one key; without a key, those that are alike in all columns. */
interface Rows {
  /** As the server writes it; null where there is none. */
  key: string | null;
  count: number;
  sum: string;
  /** Of where each of them is, and the transaction that put it there: another one after every change. */
  versions: string;
}

type Found = ReadonlyMap<string, Rows>;

export interface StreamedDifference {
  /** Keys of rows that are proven to differ; null for those without. */
  keys: (string | null)[];
  /** Rows that changed each time that they were looked at. */
  undecided: number;
}

/**
 * Which rows differ for good, while the source is written to and its changes arrive. Both are read after one another, so a
 * difference counts only with a proof:
 * - what the source has, unchanged before and after the target was read, must be on the target, which has by then
 *   applied all that the first look saw;
 * - what the source has not must have left the target, when that has applied all that the source's look saw, and the
 *   target's row is the one that was there before that look.
 * `untilApplied` waits until the target has everything that is committed on the source at its beginning.
 */
export async function findStreamedDifferences(
  source: Session,
  target: Session,
  [left, right]: readonly [RowSet, RowSet],
  method: HashMethod,
  untilApplied: () => Promise<void>,
): Promise<StreamedDifference> {
  const columns = await keyColumns(source, left);
  const read = (session: Session, set: RowSet, among: Among) => readRows(session, set, columns, method, among);
  const sums = await Promise.all([
    hashBuckets(source, left, columns, method),
    hashBuckets(target, right, columns, method),
  ]);
  const differing = [...new Set(sums.flatMap((side) => [...side.keys()]))].filter(
    (bucket) => sums[0].get(bucket) !== sums[1].get(bucket),
  );
  const buckets = differing.slice(0, LIMITS.comparedBuckets);
  const [here, there] = await Promise.all([read(source, left, { buckets }), read(target, right, { buckets })]);
  let open = [...new Set([...here.keys(), ...there.keys()])].filter((name) => !isSame(here.get(name), there.get(name)));
  const keys: (string | null)[] = [];
  let before: Found = there;
  for (let round = 1; round <= LIMITS.compareRounds && open.length > 0; round += 1) {
    const first = await read(source, left, { names: open });
    await untilApplied();
    const applied = await read(target, right, { names: open });
    const last = await read(source, left, { names: open });
    const undecided: string[] = [];
    for (const name of open) {
      const [s1, t, s2] = [first.get(name), applied.get(name), last.get(name)];
      if (isSame(t, s1) || isSame(t, s2)) continue;
      const isOnSource = s1 !== undefined && s1.versions === s2?.versions;
      const isExtra = s1 === undefined && t !== undefined && t.versions === before.get(name)?.versions;
      if (isOnSource || isExtra) keys.push((s1 ?? t)?.key ?? null);
      else undecided.push(name);
    }
    open = undecided;
    before = applied;
  }
  return { keys, undecided: open.length + differing.length - buckets.length };
}

const isSame = (left: Rows | undefined, right: Rows | undefined): boolean =>
  left?.count === right?.count && left?.sum === right?.sum;

/** Groups of rows, so that few are fetched of many. A power of 2. */
const BUCKETS = 65_536;

/** What tells rows apart, as SQL: a hash of their key, else of all that they hold. */
const nameOf = (set: RowSet, columns: readonly string[], method: HashMethod): string =>
  columns.length === 0 ? rowHash(set, method) : textHash(keyOf(columns), method);

const keyOf = (columns: readonly string[]): string =>
  columns.length === 0 ? 'NULL::text' : `ROW(${columns.map((column) => `r.${quoteIdent(column)}`).join(', ')})::text`;

async function hashBuckets(
  session: Session,
  set: RowSet,
  columns: readonly string[],
  method: HashMethod,
): Promise<Map<string, string>> {
  const rows = await session.query<{ bucket: string; sum: string }>(
    `SELECT (${nameOf(set, columns, method)} & ${BUCKETS - 1})::text AS bucket, concat(count(*), ' ', sum(${rowHash(set, method)})) AS sum
       FROM ONLY ${quoteName(set.schema, set.name)} AS r ${set.filter} GROUP BY 1`,
  );
  return new Map(rows.map(({ bucket, sum }) => [bucket, sum]));
}

type Among = { buckets: readonly string[] } | { names: readonly string[] };

async function readRows(
  session: Session,
  set: RowSet,
  columns: readonly string[],
  method: HashMethod,
  among: Among,
): Promise<Found> {
  const [which, wanted] = 'buckets' in among ? [`name & ${BUCKETS - 1}`, among.buckets] : ['name', among.names];
  const rows = await session.query<Rows & { name: string }>(
    `SELECT name::text AS name, min(key) AS key, count(*)::float8 AS count, sum(hash)::text AS sum,
            sum(${textHash('version', method)})::text AS versions
       FROM (SELECT ${nameOf(set, columns, method)} AS name, ${keyOf(columns)} AS key, ${rowHash(set, method)} AS hash,
                    concat(r.ctid, '/', r.xmin) AS version
               FROM ONLY ${quoteName(set.schema, set.name)} AS r ${set.filter}) AS row
      WHERE ${which} = ANY ($1::bigint[])
      GROUP BY name`,
    [wanted],
  );
  return new Map(rows.map(({ name, ...row }) => [name, row]));
}
