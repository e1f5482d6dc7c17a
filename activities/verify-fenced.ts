import { MigrationError } from '../src/domain/failure.ts';
import { LIMITS } from '../src/domain/limits.ts';
import type { Migration } from '../src/domain/migration.ts';
import type { Verified } from '../src/domain/progress.ts';
import type { Session } from '../src/postgres/connection.ts';
import { differingKeys } from '../src/postgres/row-difference.ts';
import type { HashMethod, RowSet } from '../src/postgres/row-hash.ts';
import { chooseHashMethod, hashRows } from '../src/postgres/row-hash.ts';
import { sqlstateOf, toMigrationError } from '../src/postgres/sqlstate.ts';
import { countedAll } from '../src/postgres/write-counters.ts';
import type { ActivityDeps } from './context.ts';
import { heartbeating, withSessions } from './context.ts';
import type { Group } from './verify.ts';
import { allOrFirstFailure, describe, readGroups, some } from './verify.ts';
import { sameSinceCompared } from './verify-streaming.ts';

const CANCELLED = '57014';

/** What is left to compare, the biggest last, and what was compared. */
interface Work {
  left: Group[];
  done: Verified;
  differing: string[];
  /** Of the clock that only goes forward. */
  endsAt: number;
}

export function createFencedVerifyActivities(deps: ActivityDeps) {
  return {
    /**
     * Compares all rows of the published tables on both sides, the smallest tables first, for as long as there is time:
     * nobody writes to the source, and everything has arrived. Says what it has compared, and never more. `ended`: the
     * fence has ended the sessions from before it; then tables to which neither side has written since they were compared
     * while they streamed are not read again.
     * @throws MigrationError `RowsDiffer` with tables and keys
     */
    async verifyFenced(m: Migration, seconds: number, ended: boolean): Promise<Verified> {
      const endsAt = performance.now() + seconds * 1000;
      return withSessions(deps, m, 'probe', 'comparing behind the fence', async (source, target) => {
        const groups = await readGroups(target, 'published');
        const unchanged = ended ? await unchangedTables(source, target, m) : new Set<number>();
        const isUnchanged = ({ members }: Group) => members.every(({ oid }) => unchanged.has(oid));
        const same = groups.filter(isUnchanged);
        const method = await chooseHashMethod(source, target);
        const work: Work = {
          left: groups.filter((group) => !isUnchanged(group)),
          done: {
            tables: same.length,
            unchanged: same.length,
            ofTables: groups.length,
            bytes: same.reduce((sum, { bytes }) => sum + bytes, 0),
          },
          differing: [],
          endsAt,
        };
        await heartbeating(
          () => ({ ...work.done }),
          async () => {
            const second = (): Promise<void> =>
              withSessions(deps, m, 'probe', 'comparing behind the fence', (left, right) =>
                compareAll(left, right, work, method),
              );
            const others = Array.from({ length: LIMITS.verifySessions - 1 }, second);
            const lanes = [compareAll(source, target, work, method), ...others];
            await allOrFirstFailure(lanes, () => (work.left.length = 0));
          },
        );
        const [first] = work.differing;
        if (first !== undefined)
          throw new MigrationError('RowsDiffer', `These tables differ behind the fence: ${some(work.differing)}.`, {
            object: first.split(' (')[0] ?? null,
          });
        return work.done;
      });
    },
  };
}

/** Oids on the source. None, where a session may not have told yet what it wrote. */
async function unchangedTables(source: Session, target: Session, m: Migration): Promise<Set<number>> {
  const counted = await Promise.all([countedAll(source, m.id, 'superusers'), countedAll(target, m.id, 'all')]);
  return counted.every(Boolean) ? sameSinceCompared(source, target) : new Set();
}

/** Until nothing is left, or no time. */
async function compareAll(source: Session, target: Session, work: Work, method: HashMethod): Promise<void> {
  for (const session of [source, target]) if (method.shortFloats) await session.query('SET extra_float_digits = 0');
  for (let batch = next(work); batch.length > 0; batch = next(work)) {
    const ms = Math.floor(work.endsAt - performance.now());
    if (ms <= 0) return;
    try {
      for (const session of [source, target]) await session.query(`SET statement_timeout = ${ms}`);
      await compareBatch(source, target, batch, work, method);
    } catch (error) {
      const label = batch[0]?.label ?? '';
      // The time is over: what was not compared is not counted.
      if (sqlstateOf(error) === CANCELLED && performance.now() >= work.endsAt) return;
      throw toMigrationError(error, { server: 'source', doing: `comparing ${label} on both servers`, object: label });
    }
  }
}

/** Many tiny ones, which go in one round trip, or one. */
function next(work: Work): Group[] {
  const isTiny = ({ bytes }: Group) => bytes < LIMITS.tinyTableBytes;
  const big = work.left.findIndex((group) => !isTiny(group));
  const tiny = big === -1 ? work.left.length : big;
  return work.left.splice(0, Math.max(1, Math.min(tiny, LIMITS.tinyTablesPerBatch)));
}

async function compareBatch(
  source: Session,
  target: Session,
  batch: readonly Group[],
  work: Work,
  method: HashMethod,
): Promise<void> {
  const now = await tablesNow(source, batch);
  const pairs = batch.map((group) => ({ group, ...setsOf(group, now) }));
  const onSource = pairs.flatMap(({ group, left }) => left.map((set) => ({ group, set })));
  const [left, right] = await Promise.all([
    hashRows(
      source,
      onSource.map(({ set }) => set),
      method,
    ),
    hashRows(
      target,
      pairs.map(({ right: set }) => set),
      method,
    ),
  ]);
  for (const [index, { group }] of onSource.entries()) {
    group.source.rows += left[index]?.rows ?? 0;
    group.source.sum += left[index]?.sum ?? 0n;
  }
  for (const [index, { group, left: sets, right: set }] of pairs.entries()) {
    group.target = right[index] ?? group.target;
    work.done.tables += 1;
    work.done.bytes += group.bytes;
    if (group.source.rows === group.target.rows && group.source.sum === group.target.sum) continue;
    // Booked before its keys are looked for: that may take longer than there is time.
    const place = work.differing.push(describe(group)) - 1;
    const [only] = sets;
    if (sets.length !== 1 || only === undefined) continue;
    const keys = await keysInTime(source, target, [only, set], work, method);
    if (keys !== null) work.differing[place] = `${describe(group)}, with the keys ${keys.join(', ')}`;
  }
}

/** Null: there are none, or no time to find them. */
async function keysInTime(
  source: Session,
  target: Session,
  sets: readonly [RowSet, RowSet],
  work: Work,
  method: HashMethod,
): Promise<string[] | null> {
  // Two queries, one after the other.
  const ms = Math.floor((work.endsAt - performance.now()) / 2);
  if (ms <= 0) return null;
  for (const session of [source, target]) await session.query(`SET statement_timeout = ${ms}`);
  return differingKeys(source, target, sets, method).catch((error: unknown) => {
    if (sqlstateOf(error) === CANCELLED) return null;
    throw error;
  });
}

interface TableNow {
  schema: string;
  name: string;
  columns: string[];
}

/**
 * What to read on either side. By the names that table and columns have now on the source: they may have been renamed on
 * both servers since the copy, and be in another order on the target. Where the target routes rows, it has tables of its own.
 */
function setsOf(group: Group, now: ReadonlyMap<number, TableNow>): { left: RowSet[]; right: RowSet } {
  const routed = group.columns !== null;
  const filter = group.condition;
  const tables = group.members.flatMap(({ oid }) => now.get(oid) ?? []);
  const columns = group.columns ?? tables[0]?.columns ?? null;
  const { schema, name } = routed ? group : (tables[0] ?? group);
  return {
    left: tables.map((table) => ({ ...table, columns, filter, descend: false })),
    right: { schema, name, columns, filter, descend: routed },
  };
}

async function tablesNow(source: Session, batch: readonly Group[]): Promise<Map<number, TableNow>> {
  const rows = await source.query<TableNow & { oid: number }>(
    `SELECT c.oid::bigint::float8 AS oid, n.nspname AS schema, c.relname AS name,
            array(SELECT attname::text FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped ORDER BY attnum) AS columns
       FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY ($1::oid[])`,
    [batch.flatMap(({ members }) => members.map(({ oid }) => oid))],
  );
  return new Map(rows.map(({ oid, ...table }) => [oid, table]));
}
