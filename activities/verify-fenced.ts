import { MigrationError } from '../src/domain/failure.ts';
import { LIMITS } from '../src/domain/limits.ts';
import type { Migration } from '../src/domain/migration.ts';
import type { Verified } from '../src/domain/progress.ts';
import type { Session } from '../src/postgres/connection.ts';
import { differingKeys } from '../src/postgres/row-difference.ts';
import type { HashMethod, RowSet } from '../src/postgres/row-hash.ts';
import { chooseHashMethod, hashRows } from '../src/postgres/row-hash.ts';
import { sqlstateOf, toMigrationError } from '../src/postgres/sqlstate.ts';
import type { ActivityDeps } from './context.ts';
import { heartbeating, withSessions } from './context.ts';
import type { Group } from './verify.ts';
import { describe, readGroups, some } from './verify.ts';

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
     * nobody writes to the source, and everything has arrived. Says what it has compared, and never more.
     * @throws MigrationError `RowsDiffer` with tables and keys
     */
    async verifyFenced(m: Migration, seconds: number): Promise<Verified> {
      const endsAt = performance.now() + seconds * 1000;
      return withSessions(deps, m, 'probe', 'comparing behind the fence', async (source, target) => {
        const groups = await readGroups(target, 'published');
        const method = await chooseHashMethod(source, target);
        const work: Work = {
          left: [...groups],
          done: { tables: 0, ofTables: groups.length, bytes: 0 },
          differing: [],
          endsAt,
        };
        await heartbeating(
          () => ({ ...work.done }),
          async () => {
            const second = () =>
              withSessions(deps, m, 'probe', 'comparing behind the fence', (left, right) =>
                compareAll(left, right, work, method),
              );
            await Promise.all([compareAll(source, target, work, method), second()]);
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
      throw toMigrationError(error, { server: 'source', doing: `comparing ${label}`, object: label });
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
  const names = await namesNow(source, batch);
  const members = batch.flatMap((group) => group.members.map((member) => ({ group, oid: member.oid })));
  const onSource = members.flatMap(({ group, oid }) => {
    const name = names.get(oid);
    return name === undefined ? [] : [{ group, set: { ...setOf(group), ...name, descend: false } }];
  });
  const onTarget = batch.map((group) => ({ group, set: setOf(group) }));
  const [left, right] = await Promise.all([
    hashRows(
      source,
      onSource.map(({ set }) => set),
      method,
    ),
    hashRows(
      target,
      onTarget.map(({ set }) => set),
      method,
    ),
  ]);
  for (const [index, { group }] of onSource.entries()) {
    group.source.rows += left[index]?.rows ?? 0;
    group.source.sum += left[index]?.sum ?? 0n;
  }
  for (const [index, { group }] of onTarget.entries()) group.target = right[index] ?? group.target;
  for (const group of batch) {
    work.done.tables += 1;
    work.done.bytes += group.bytes;
    if (group.source.rows === group.target.rows && group.source.sum === group.target.sum) continue;
    const pair = onSource.filter((one) => one.group === group);
    const [only] = pair;
    const keys =
      pair.length === 1 && only !== undefined
        ? await differingKeys(source, target, [only.set, setOf(group)], method)
        : null;
    work.differing.push(`${describe(group)}${keys === null ? '' : `, with the keys ${keys.join(', ')}`}`);
  }
}

const setOf = ({ schema, name, columns, condition }: Group): RowSet => ({
  ...{ schema, name, columns, filter: condition },
  descend: columns !== null,
});

/** A table may have been renamed on both servers since its copy. */
async function namesNow(
  source: Session,
  batch: readonly Group[],
): Promise<Map<number, { schema: string; name: string }>> {
  const rows = await source.query<{ oid: number; schema: string; name: string }>(
    `SELECT c.oid::bigint::float8 AS oid, n.nspname AS schema, c.relname AS name
       FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY ($1::oid[])`,
    [batch.flatMap(({ members }) => members.map(({ oid }) => oid))],
  );
  return new Map(rows.map(({ oid, schema, name }) => [oid, { schema, name }]));
}
