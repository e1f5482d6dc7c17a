import { LEDGER_SCHEMA } from '../src/contract.ts';
import { MigrationError } from '../src/domain/failure.ts';
import { LIMITS } from '../src/domain/limits.ts';
import type { Migration } from '../src/domain/migration.ts';
import type { Session } from '../src/postgres/connection.ts';
import { displayName } from '../src/postgres/identifier.ts';
import { CUTTABLE_TYPES, cutByKey } from '../src/postgres/key-range.ts';
import { bytesUnconfirmed, emitMark } from '../src/postgres/lag.ts';
import { chooseHashMethod, hashRows } from '../src/postgres/row-hash.ts';
import type { HashMethod, RowSet } from '../src/postgres/row-hash.ts';
import { toMigrationError } from '../src/postgres/sqlstate.ts';
import { findStreamedDifferences } from '../src/postgres/streamed-difference.ts';
import { readTableVersions } from '../src/postgres/write-counters.ts';
import type { ActivityDeps } from './context.ts';
import { heartbeating, nextPoll, withSessions } from './context.ts';
import { generationNames } from './replication.ts';

/** Of a table, what is compared at once. */
interface Part {
  relation: number;
  number: number;
  condition: string;
}

export interface PartSizes {
  comparedBytes: number;
  comparedWholeBytes: number;
  comparePause: number;
}

export function createStreamingVerifyActivities(deps: ActivityDeps, sizes: PartSizes = LIMITS) {
  return {
    /**
     * Compares the replicated tables part by part while changes arrive, all of them again after an hour, until it is
     * cancelled. The ledger has how far it is. It works a tenth of the time, so that nobody notices.
     * @throws MigrationError `RowsDiffer` with table and keys, once that is proven
     */
    async verifyStreaming(m: Migration): Promise<void> {
      const progress = { compared: 0, of: 0, current: null as string | null };
      await heartbeating(
        () => ({ ...progress }),
        async () => {
          for (;;) {
            const began = performance.now();
            // Sessions of its own each time: between two parts it has none, so that hundreds of databases take few.
            const part = await withSessions(deps, m, 'probe', 'comparing while it streams', async (source, target) => {
              await planParts(source, target, sizes);
              const next = await nextPart(target);
              Object.assign(progress, await count(target), { current: null });
              if (next === null) return null;
              const table = await tableNow(source, target, next);
              if (table === null) await bookLook(target, next, NOTHING_SEEN);
              else {
                progress.current = table.label;
                await comparePart(source, target, m, next, table);
              }
              return next;
            });
            progress.current = null;
            await pause(part === null ? LIMITS.compareIdleMs : (performance.now() - began) * sizes.comparePause);
          }
        },
      );
    },
  };
}

async function pause(ms: number): Promise<void> {
  for (const until = performance.now() + ms; performance.now() < until;)
    await nextPoll(Math.min(LIMITS.watchEveryMs, Math.max(1, until - performance.now())));
}

/** Parts of tables that have none yet. Those too large to be of one moment have none, and are left to the cutover. */
async function planParts(source: Session, target: Session, sizes: PartSizes): Promise<void> {
  const unplanned = await target.query<{ oid: number; schema: string; name: string }>(
    `SELECT r.oid::float8 AS oid, r.schema, r.name FROM ${LEDGER_SCHEMA}.relation r
      WHERE r.published AND NOT EXISTS (SELECT FROM ${LEDGER_SCHEMA}.comparison c WHERE c.relation = r.oid)`,
  );
  if (unplanned.length === 0) return;
  const facts = await source.query<{
    oid: number;
    schema: string;
    name: string;
    pages: number;
    bytes: number;
    column: string | null;
    type: string | null;
  }>(
    `SELECT c.oid::bigint::float8 AS oid, n.nspname AS schema, c.relname AS name, pg_table_size(c.oid)::float8 AS bytes,
            (pg_relation_size(c.oid) / current_setting('block_size')::int)::float8 AS pages, a.attname AS column, y.typname AS type
       FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
       LEFT JOIN pg_index x ON x.indrelid = c.oid AND x.indisvalid AND x.indisprimary
       LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = x.indkey[0]
       LEFT JOIN pg_type y ON y.oid = a.atttypid AND y.typnamespace = 'pg_catalog'::regnamespace
      WHERE c.oid = ANY ($1::oid[])`,
    [unplanned.map(({ oid }) => oid)],
  );
  for (const table of facts) {
    const { oid, column, type, bytes } = table;
    const most = Math.ceil(bytes / sizes.comparedBytes);
    const isCut = most > 1 && column !== null && CUTTABLE_TYPES.includes(type ?? '');
    if (!isCut && bytes > sizes.comparedWholeBytes) continue;
    const conditions = isCut ? await cutByKey(source, table, column, most) : [''];
    await target.query(
      `INSERT INTO ${LEDGER_SCHEMA}.comparison (relation, number, condition, bytes)
       SELECT $1, number - 1, condition, $3 FROM unnest($2::text[]) WITH ORDINALITY AS c (condition, number) ON CONFLICT DO NOTHING`,
      [oid, conditions, Math.round(bytes / conditions.length)],
    );
  }
}

/** The one that was not looked at for the longest time; null when all were, not long ago. */
async function nextPart(target: Session): Promise<Part | null> {
  const [part] = await target.query<Part>(
    `SELECT relation::float8 AS relation, number, condition FROM ${LEDGER_SCHEMA}.comparison
      WHERE looked IS NULL OR looked < clock_timestamp() - $1 * interval '1 ms'
      ORDER BY looked NULLS FIRST, bytes, relation, number LIMIT 1`,
    [LIMITS.compareAgainMs],
  );
  return part ?? null;
}

const count = (target: Session): Promise<{ compared: number; of: number }> =>
  target.one(
    `SELECT count(*) FILTER (WHERE equal IS NOT NULL)::float8 AS compared, count(*)::float8 AS of FROM ${LEDGER_SCHEMA}.comparison`,
  );

interface Look {
  /** Seen to be the same, row by row or as a whole. */
  isEqual: boolean;
  seconds: number | null;
  /** Of both tables from before the look, where that found them to be the same as a whole: then they still are. */
  versions: readonly (string | null)[];
}

const NOTHING_SEEN: Look = { isEqual: false, seconds: null, versions: [] };

const bookLook = async (target: Session, { relation, number }: Part, look: Look): Promise<void> =>
  void (await target.query(
    `UPDATE ${LEDGER_SCHEMA}.comparison
        SET looked = clock_timestamp(), difference = NULL, equal = CASE WHEN $3 THEN clock_timestamp() ELSE equal END,
            seconds = coalesce($4, seconds), source_version = $5, target_version = $6
      WHERE relation = $1 AND number = $2`,
    [relation, number, look.isEqual, look.seconds, look.versions[0] ?? null, look.versions[1] ?? null],
  ));

interface TableNow {
  label: string;
  schema: string;
  name: string;
  columns: string[];
}

/** As it is now, under the source's names; null when the two sides do not have the same: another step tells of that. */
async function tableNow(source: Session, target: Session, { relation }: Part): Promise<TableNow | null> {
  const columns = `array(SELECT attname::text FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped ORDER BY attnum)`;
  const [here] = await source.query<Omit<TableNow, 'label'>>(
    `SELECT n.nspname AS schema, c.relname AS name, ${columns} AS columns
       FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1`,
    [relation],
  );
  if (here === undefined) return null;
  const [there] = await target.query<{ columns: string[] }>(
    `SELECT ${columns} AS columns FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2`,
    [here.schema, here.name],
  );
  const isAlike =
    there?.columns.length === here.columns.length && here.columns.every((name) => there.columns.includes(name));
  return isAlike ? { ...here, label: displayName(here.schema, here.name) } : null;
}

async function comparePart(
  source: Session,
  target: Session,
  m: Migration,
  part: Part,
  { label, ...table }: TableNow,
): Promise<void> {
  const method = await chooseHashMethod(source, target);
  for (const session of [source, target]) if (method.shortFloats) await session.query('SET extra_float_digits = 0');
  const set: RowSet = { ...table, descend: false, filter: part.condition === '' ? '' : `WHERE ${part.condition}` };
  try {
    const versions = (await Promise.all([source, target].map((side) => readTableVersions(side, [table])))).flat();
    const began = performance.now();
    const isEqual = await isSame(source, target, set, method);
    const seconds = (performance.now() - began) / 1000;
    if (isEqual) return await bookLook(target, part, { isEqual, seconds, versions });
    const names = await generationNames(target, m);
    const { keys, undecided } = await findStreamedDifferences(source, target, [set, set], method, () =>
      untilApplied(source, m, names),
    );
    if (keys.length > 0) throw await differs(target, part, label, keys);
    // What changes all the time is compared when it does so less, or behind the fence.
    await bookLook(target, part, { isEqual: undecided === 0, seconds, versions: [] });
  } catch (error) {
    throw toMigrationError(error, { server: 'source', doing: `comparing ${label} on both servers`, object: label });
  }
}

async function isSame(source: Session, target: Session, set: RowSet, method: HashMethod): Promise<boolean> {
  const [[left], [right]] = await Promise.all([hashRows(source, [set], method), hashRows(target, [set], method)]);
  return left?.rows === right?.rows && left?.sum === right?.sum;
}

async function untilApplied(source: Session, m: Migration, names: readonly string[]): Promise<void> {
  const lsn = await emitMark(source, m.id);
  while ((await bytesUnconfirmed(source, names, lsn)) !== 0) await nextPoll(LIMITS.gatePollMs);
}

async function differs(
  target: Session,
  { relation, number }: Part,
  label: string,
  keys: readonly (string | null)[],
): Promise<MigrationError> {
  const named = keys.filter((key) => key !== null);
  const which =
    named.length === 0
      ? `${keys.length} kinds of rows, which no key tells apart`
      : `${named.length} rows, with the keys ${named.slice(0, LIMITS.keysInMessage).join(', ')}`;
  const difference = `Table ${label} differs while it streams: ${which}.`;
  // An answer of `retry` looks at it first.
  await target.query(
    `UPDATE ${LEDGER_SCHEMA}.comparison SET looked = NULL, equal = NULL, source_version = NULL, target_version = NULL, difference = $3 WHERE relation = $1 AND number = $2`,
    [relation, number, difference],
  );
  return new MigrationError('RowsDiffer', difference, { object: label });
}

/** The tables, by oid on the source, whose rows were all compared, and that neither server has counted a write to since. */
export async function sameSinceCompared(source: Session, target: Session): Promise<Set<number>> {
  const compared = await target.query<{ oid: number; versions: [string, string] }>(
    `SELECT relation::float8 AS oid, ARRAY[min(source_version), min(target_version)] AS versions FROM ${LEDGER_SCHEMA}.comparison
      GROUP BY relation
     HAVING bool_and(equal IS NOT NULL AND source_version IS NOT NULL AND target_version IS NOT NULL)
        AND count(DISTINCT (source_version, target_version)) = 1`,
  );
  const tables = await source.query<{ oid: number; schema: string; name: string }>(
    `SELECT c.oid::bigint::float8 AS oid, n.nspname AS schema, c.relname AS name
       FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY ($1::oid[])`,
    [compared.map(({ oid }) => oid)],
  );
  const [here, there] = await Promise.all([readTableVersions(source, tables), readTableVersions(target, tables)]);
  const before = new Map(compared.map(({ oid, versions }) => [oid, versions]));
  const isSame = (oid: number, index: number) =>
    before.get(oid)?.[0] === here[index] && before.get(oid)?.[1] === there[index];
  return new Set(tables.flatMap(({ oid }, index) => (isSame(oid, index) ? [oid] : [])));
}
