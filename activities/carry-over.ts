import { LEDGER_SCHEMA } from '../src/contract.ts';
import { LIMITS } from '../src/domain/limits.ts';
import type { Migration, WriteCounters } from '../src/domain/migration.ts';
import type { Session } from '../src/postgres/connection.ts';
import { relayCopies } from '../src/postgres/copy-stream.ts';
import { displayName, quoteName } from '../src/postgres/identifier.ts';
import { recordWarning, requireOwnLedger } from '../src/postgres/ledger.ts';
import { sqlstateOf } from '../src/postgres/sqlstate.ts';
import { copyOf } from '../src/postgres/table-copy.ts';
import { readWriteCounters, sameCounters } from '../src/postgres/write-counters.ts';
import type { ActivityDeps } from './context.ts';
import { heartbeating, withSession, withSessions } from './context.ts';
import { openLaneSource, openLaneTarget } from './lane-sessions.ts';
import type { LargeObjectProgress } from './large-objects.ts';
import { carryLargeObjects } from './large-objects.ts';
import { syncSequences } from './sequences.ts';

const INSUFFICIENT_PRIVILEGE = '42501';

export interface CarriedOver {
  sequences: number;
  /** Made or changed since they were copied. */
  largeObjects: number;
  unloggedTables: number;
}

export function createCarryOverActivities(deps: ActivityDeps) {
  const carry = async (source: Session, target: Session, m: Migration): Promise<number> => {
    const progress: LargeObjectProgress = { objects: 0, total: 0, bytes: 0 };
    return heartbeating(
      () => ({ ...progress }),
      () => carryLargeObjects(source, target, m.plan, progress),
    );
  };

  return {
    /**
     * Before the fence: large objects that were made or changed since, so that few are left for it. Answers what the
     * server has counted for them at its beginning, by which the fence knows whether there are any.
     */
    async catchUpLargeObjects(m: Migration): Promise<WriteCounters | null> {
      return withSessions(deps, m, 'control', 'copying large objects that changed', async (source, target) => {
        await requireOwnLedger(target, m);
        const before = await readWriteCounters(source);
        await carry(source, target, m);
        return before;
      });
    },

    /**
     * Behind the fence, after the subscriptions are disabled: everything that no stream brings. `ahead`: as
     * `catchUpLargeObjects` has it, where the fence has ended the sessions from before; else null, and all are compared.
     */
    async carryOver(m: Migration, ahead: WriteCounters | null): Promise<CarriedOver> {
      const carried = await withSessions(deps, m, 'control', 'carrying the sequences over', async (source, target) => {
        // After the end the application has them.
        await requireOwnLedger(target, m);
        const sequences = await syncSequences(source, target);
        const isUntouched = ahead !== null && sameCounters(ahead, await readWriteCounters(source));
        const largeObjects = isUntouched ? 0 : await carry(source, target, m);
        return { sequences, largeObjects, unlogged: await listUnlogged(source, target) };
      });
      const { unlogged, ...rest } = carried;
      return { ...rest, unloggedTables: unlogged.length === 0 ? 0 : await copyUnlogged(deps, m, unlogged) };
    },
  };
}

interface Unlogged {
  schema: string;
  name: string;
  targetSchema: string;
  targetName: string;
  columns: string[];
  format: 'binary' | 'text';
}

async function listUnlogged(source: Session, target: Session): Promise<Unlogged[]> {
  const copied = await target.query<Unlogged & { oid: number }>(
    `SELECT oid::float8 AS oid, schema, name, target_schema AS "targetSchema", target_name AS "targetName", columns, format
       FROM ${LEDGER_SCHEMA}.relation WHERE NOT published AND condition IS NULL`,
  );
  if (copied.length === 0) return [];
  const now = await source.query<{ oid: number }>(
    `SELECT oid::bigint::float8 AS oid FROM pg_class WHERE oid = ANY ($1::oid[]) AND relpersistence = 'u'`,
    [copied.map(({ oid }) => oid)],
  );
  const unlogged = new Set(now.map(({ oid }) => oid));
  return copied.filter(({ oid }) => unlogged.has(oid));
}

/** All of them once more, in one transaction: no publication can list them. */
async function copyUnlogged(deps: ActivityDeps, m: Migration, tables: readonly Unlogged[]): Promise<number> {
  const doing = 'copying unlogged tables once more';
  return withSession(openLaneTarget(deps, m, 'control'), doing, (target) =>
    withSession(openLaneSource(deps, m, 'control'), doing, async (source) => {
      await target.query('SET synchronous_commit = on');
      if (!(await withoutTriggers(target))) {
        const names = tables.map(({ schema, name }) => displayName(schema, name));
        await recordWarning(
          target,
          'carryOver',
          `Unlogged tables arrive as they were when the copy began, because our role on the target may not switch off triggers: ${names.slice(0, LIMITS.namesInMessage).join(', ')}.`,
        );
        return 0;
      }
      await heartbeating(
        () => ({ tables: tables.length }),
        () =>
          target.transaction(async () => {
            // TRUNCATE would be refused where foreign keys lead to the table.
            for (const { targetSchema, targetName } of tables)
              await target.query(`DELETE FROM ONLY ${quoteName(targetSchema, targetName)}`);
            const copies = tables.map((table) =>
              copyOf({ ...table, ...AS_A_WHOLE, label: displayName(table.schema, table.name) }),
            );
            await source.transaction(
              () => relayCopies(source, target, copies),
              'BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY',
            );
          }),
      );
      return tables.length;
    }),
  );
}

/** Of a unit: no range, and into what is there. */
const AS_A_WHOLE = {
  id: 0,
  relation: 0,
  firstPage: null,
  endPage: null,
  keyRange: null,
  rangeCondition: null,
  condition: null,
  bytes: 0,
  tiny: true,
} as const;

/** They have fired on the source, and foreign keys held there. Answers whether our role may do without. */
async function withoutTriggers(target: Session): Promise<boolean> {
  try {
    await target.query('SET session_replication_role = replica');
    return true;
  } catch (error) {
    if (sqlstateOf(error) === INSUFFICIENT_PRIVILEGE) return false;
    throw error;
  }
}
