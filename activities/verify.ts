import { LEDGER_SCHEMA } from '../src/contract.ts';
import { MigrationError } from '../src/domain/failure.ts';
import { LIMITS } from '../src/domain/limits.ts';
import type { Migration } from '../src/domain/migration.ts';
import type { Session } from '../src/postgres/connection.ts';
import { displayName } from '../src/postgres/identifier.ts';
import { recordWarning } from '../src/postgres/ledger.ts';
import type { HashMethod, RowHash, RowSet } from '../src/postgres/row-hash.ts';
import { chooseHashMethod, hashRows, pageRanges } from '../src/postgres/row-hash.ts';
import { LOCK_NOT_AVAILABLE, lockAndFindChanged, underSnapshot } from '../src/postgres/import-snapshot.ts';
import { sqlstateOf, toMigrationError } from '../src/postgres/sqlstate.ts';
import type { ActivityDeps } from './context.ts';
import { heartbeating, withSession } from './context.ts';
import { openLaneSource, openLaneTarget } from './lane-sessions.ts';

export interface Verification {
  tables: number;
  rows: number;
  seconds: number;
}

/** Tables whose rows are together in one table on the target: one, or the partitions whose rows the target routes. */
export interface Group {
  label: string;
  schema: string;
  name: string;
  condition: string;
  members: { oid: number; schema: string; name: string; pages: number }[];
  /** Routed: the partitions may have their columns in different orders, so they are compared by name. */
  columns: string[] | null;
  bytes: number;
  source: RowHash;
  target: RowHash;
  /** Rewritten on the source after it was copied: the snapshot cannot read it any more. */
  unreadable: boolean;
}

/** One query on one side. */
interface Task {
  group: Group;
  set: RowSet;
  /** Of the table on the source; on the target it does not matter. */
  oid: number;
}

export function createVerifyActivities(deps: ActivityDeps) {
  return {
    /** Compares every table of the generation on both sides, under its snapshot on the source, before changes are applied. */
    async verifyCopied(m: Migration, generation: number): Promise<Verification> {
      const began = performance.now();
      const progress = { tables: 0, rows: 0, current: null as string | null };
      return heartbeating(
        () => ({ ...progress }),
        () =>
          withSession(openLaneTarget(deps, m, 'copy'), 'verifying the copy', async (target) => {
            const { snapshot } = await target.one<{ snapshot: string }>(
              `SELECT snapshot FROM ${LEDGER_SCHEMA}.generation WHERE number = $1`,
              [generation],
            );
            const groups = await readGroups(target, `generation = $1 AND NOT ${EARLIER_RANGES}`, [generation]);
            await warnOfEarlier(target, generation);
            const method = await withSession(openLaneSource(deps, m, 'copy'), 'verifying the copy', (source) =>
              chooseHashMethod(source, target),
            );
            const work = (session: Session, tasks: Task[], hash: (batch: Task[]) => Promise<void>) =>
              withSession(Promise.resolve(session), 'verifying the copy', async () => {
                if (method.shortFloats) await session.query('SET extra_float_digits = 0');
                for (let batch = nextBatch(tasks); batch.length > 0; batch = nextBatch(tasks)) {
                  progress.current = batch[0]?.group.label ?? null;
                  await named(session, batch, () => hash(batch));
                }
              });
            const onSource = async (tasks: Task[]) => {
              const session = await openLaneSource(deps, m, 'copy');
              await work(session, tasks, (batch) => hashOnSource(session, snapshot, batch, method));
            };
            const onTarget = async (tasks: Task[]) => {
              const session = await openLaneTarget(deps, m, 'copy');
              await work(session, tasks, async (batch) => {
                progress.rows += await hashBatch(session, batch, 'target', method);
              });
            };
            const [left, right] = [sourceTasks(groups, m.servers.source.version), await targetTasks(target, groups)];
            const sessions = Array.from({ length: LIMITS.verifySessions }, () => [
              onSource(left),
              onTarget(right),
            ]).flat();
            await allOrFirstFailure(sessions, () => (left.length = right.length = 0));
            return await compare(target, groups, began);
          }),
      );
    },
  };
}

/** No one snapshot has such a table as it was copied. */
const EARLIER_RANGES = `EXISTS (SELECT FROM ${LEDGER_SCHEMA}.key_range k WHERE k.relation = oid AND k.generation < $1)`;

/** What was finished under a snapshot that is lost cannot be read as it was any more. */
async function warnOfEarlier(target: Session, generation: number): Promise<void> {
  const { count } = await target.one<{ count: number }>(
    `SELECT count(*)::float8 AS count FROM ${LEDGER_SCHEMA}.relation WHERE generation < $1 OR ${EARLIER_RANGES}`,
    [generation],
  );
  if (count > 0)
    await recordWarning(
      target,
      'verifyCopied',
      `Not compared, because their snapshot was lost after they were copied: ${count} tables.`,
    );
}

/** Waits for all, so that none works on after the answer, and throws the first failure; it tells the others to stop. */
export async function allOrFirstFailure(work: Promise<void>[], stop: () => void): Promise<void> {
  for (const one of work) one.catch(stop);
  const results = await Promise.allSettled(work);
  for (const result of results) if (result.status === 'rejected') throw result.reason;
}

/** Smallest first. `which`: a condition on the ledger's relations. */
export async function readGroups(
  target: Session,
  which: string,
  parameters: readonly unknown[] = [],
): Promise<Group[]> {
  const rows = await target.query<{
    schema: string;
    name: string;
    condition: string | null;
    members: Group['members'];
    routed: boolean;
    columns: string[];
    bytes: number;
  }>(
    `SELECT target_schema AS schema, target_name AS name, min(condition) AS condition, sum(bytes)::float8 AS bytes,
            bool_or((schema, name) <> (target_schema, target_name)) AS routed, (array_agg(array_to_json(columns)))[1] AS columns,
            json_agg(json_build_object('oid', oid, 'schema', schema, 'name', name, 'pages', pages)) AS members
       FROM ${LEDGER_SCHEMA}.relation WHERE ${which} GROUP BY target_schema, target_name ORDER BY sum(bytes), min(oid)`,
    parameters,
  );
  return rows.map(({ schema, name, condition, members, routed, columns, bytes }) => ({
    label: displayName(schema, name),
    schema,
    name,
    condition: condition ?? '',
    members,
    columns: routed ? columns : null,
    bytes,
    source: { rows: 0, sum: 0n },
    target: { rows: 0, sum: 0n },
    unreadable: false,
  }));
}

/** Pages of about one chunk's bytes, so that two sessions can share a big table. */
const rangeOf = (bytes: number, pages: number): number =>
  bytes <= LIMITS.splitTableBytes
    ? Number.MAX_SAFE_INTEGER
    : Math.max(1, Math.ceil((pages * LIMITS.chunkBytes) / bytes));

/** Smallest first, since tasks are taken from the end. */
const sourceTasks = (groups: readonly Group[], version: number): Task[] =>
  groups.flatMap((group) =>
    group.members.flatMap(({ oid, schema, name, pages }) => {
      const ranges =
        group.condition === '' ? pageRanges(version, pages, rangeOf(group.bytes, pages)) : [group.condition];
      return ranges.map((filter) => ({
        group,
        oid,
        set: { schema, name, descend: false, columns: group.columns, filter },
      }));
    }),
  );

async function targetTasks(target: Session, groups: readonly Group[]): Promise<Task[]> {
  const sizes = await target.query<{ schema: string; name: string; pages: number }>(
    `SELECT n.nspname AS schema, c.relname AS name,
            (pg_relation_size(c.oid) / current_setting('block_size')::int)::float8 AS pages
       FROM unnest($1::text[], $2::text[]) AS big (schema, name)
       JOIN pg_namespace n ON n.nspname = big.schema
       JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = big.name AND c.relkind = 'r'`,
    [groups.map(({ schema }) => schema), groups.map(({ name }) => name)],
  );
  const pages = new Map(sizes.map((row) => [displayName(row.schema, row.name), row.pages]));
  return groups.flatMap((group) => {
    const own = pages.get(group.label) ?? 0;
    const ranges =
      group.condition === '' ? pageRanges(target.version, own, rangeOf(group.bytes, own)) : [group.condition];
    const { schema, name, columns } = group;
    return ranges.map((filter) => ({
      group,
      oid: 0,
      set: { schema, name, descend: columns !== null, columns, filter },
    }));
  });
}

/** The biggest that is left, or many tiny ones, which go in one round trip. */
function nextBatch(tasks: Task[]): Task[] {
  const isTiny = (task: Task | undefined) => task !== undefined && task.group.bytes < LIMITS.tinyTableBytes;
  const most = isTiny(tasks.at(-1)) ? LIMITS.tinyTablesPerBatch : 1;
  return tasks.splice(Math.max(tasks.length - most, 0));
}

/** @returns rows */
async function hashBatch(
  session: Session,
  batch: readonly Task[],
  side: 'source' | 'target',
  method: HashMethod,
): Promise<number> {
  const hashes = await hashRows(
    session,
    batch.map(({ set }) => set),
    method,
  );
  let rows = 0;
  for (const [index, { group }] of batch.entries()) {
    const part = hashes[index] ?? { rows: 0, sum: 0n };
    group[side].rows += part.rows;
    group[side].sum += part.sum;
    rows += part.rows;
  }
  return rows;
}

async function hashOnSource(
  session: Session,
  snapshot: string,
  batch: readonly Task[],
  method: HashMethod,
): Promise<void> {
  const readable = await underSnapshot(session, snapshot, async () => {
    const tables = batch.map(({ oid, set }) => ({ oid, schema: set.schema, name: set.name }));
    if (batch.length > 1) await session.query(`SET LOCAL lock_timeout = ${LIMITS.batchLockTimeoutMs}`);
    const changed = await lockAndFindChanged(session, tables).catch((error: unknown) => {
      if (error instanceof MigrationError && error.type === 'SnapshotLost') return tables;
      throw error;
    });
    if (changed.length > 0) return false;
    await hashBatch(session, batch, 'source', method);
    return true;
  }).catch((error: unknown) => {
    // Somebody of the application holds one of many; one at a time can wait for it without holding others.
    if (batch.length > 1 && sqlstateOf(error) === LOCK_NOT_AVAILABLE) return false;
    throw error;
  });
  if (readable) return;
  const [only] = batch;
  if (batch.length === 1 && only !== undefined) only.group.unreadable = true;
  else for (const task of batch) await hashOnSource(session, snapshot, [task], method);
}

async function named<T>(session: Session, batch: readonly Task[], work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const label = batch[0]?.group.label ?? '';
    const doing = `verifying ${label}${batch.length > 1 ? ` and ${batch.length - 1} more` : ''}`;
    throw toMigrationError(error, { server: session.endpoint.server, doing, object: label });
  }
}

async function compare(target: Session, groups: readonly Group[], began: number): Promise<Verification> {
  const readable = groups.filter((group) => !group.unreadable);
  const skipped = groups.filter((group) => group.unreadable).map(({ label }) => label);
  if (skipped.length > 0)
    await recordWarning(
      target,
      'verifyCopied',
      `Not compared, because rewritten on the source after they were copied: ${some(skipped)}.`,
    );
  const differing = readable.filter(({ source, target }) => source.rows !== target.rows || source.sum !== target.sum);
  if (differing.length > 0)
    throw new MigrationError('RowsDiffer', `These tables differ: ${some(differing.map(describe))}.`, {
      object: differing[0]?.label ?? null,
    });
  return {
    tables: readable.length,
    rows: readable.reduce((sum, { target }) => sum + target.rows, 0),
    seconds: (performance.now() - began) / 1000,
  };
}

export const describe = ({ label, source, target }: Group): string =>
  source.rows === target.rows
    ? `${label} (${source.rows} rows on both sides, with other values)`
    : `${label} (${source.rows} rows on the source, ${target.rows} on the target)`;

export const some = (names: readonly string[]): string =>
  names.slice(0, LIMITS.namesInMessage).join(', ') +
  (names.length > LIMITS.namesInMessage ? ` and ${names.length - LIMITS.namesInMessage} more` : '');
