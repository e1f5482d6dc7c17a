import { generationName, LEDGER_SCHEMA } from '../src/contract.ts';
import { MigrationError } from '../src/domain/failure.ts';
import { LIMITS } from '../src/domain/limits.ts';
import type { LaneProgress, Migration } from '../src/domain/migration.ts';
import { ring } from '../src/postgres/bell.ts';
import type { Session } from '../src/postgres/connection.ts';
import type { CopySizes } from '../src/postgres/copy-plan.ts';
import { planRelations, planUnits, writeCopyPlan } from '../src/postgres/copy-plan.ts';
import { holdOpenGeneration, SEALED, tablesOfGeneration } from '../src/postgres/generation.ts';
import { displayName } from '../src/postgres/identifier.ts';
import { underSnapshot } from '../src/postgres/import-snapshot.ts';
import { recordEvent, recordWarning } from '../src/postgres/ledger.ts';
import { listTables } from '../src/postgres/scope.ts';
import type { Table } from '../src/postgres/scope.ts';
import { truncatedInStream } from '../src/postgres/truncation.ts';
import { findUnfinished } from '../src/postgres/unit.ts';
import type { ActivityDeps } from './context.ts';
import { heartbeating, openSource, openTarget, withSession } from './context.ts';
import { runCopyLane } from './copy-lane.ts';
import { empty, rangesToCopy } from './copy-ranges.ts';
import { flushLane, openLaneSource, openLaneTarget, takeOverLane, withBoth } from './lane-sessions.ts';

export interface CopyPlan {
  tables: number;
  /** Of the heaps with their TOAST, on the source. */
  bytes: number;
  units: number;
  indexes: number;
}

export interface CopyTotals {
  tables: number;
  rows: number;
  bytes: number;
}

const planned = (generation: number): string => `planCopy ${generation}`;

export function createCopyActivities(deps: ActivityDeps, sizes: CopySizes = LIMITS) {
  return {
    /**
     * Writes what this generation is to copy to the ledger: all tables, or those that the one before it left over, as
     * they are now. When that is there already, it only answers with the totals.
     */
    async planCopy(m: Migration, generation: number): Promise<CopyPlan> {
      return withBoth(deps, m, 'control', 'planning the copy', async (source, target) => {
        await target.transaction(async () => {
          await target.query('SET LOCAL synchronous_commit = on');
          // Two attempts at once: the second waits here, and finds the plan of the first.
          const snapshot = await holdOpenGeneration(target, generation, 'UPDATE');
          if (await isPlanned(target, generation)) return;
          const isWanted = await tablesOfGeneration(target, generation);
          const tables = await underSnapshot(source, snapshot, async () => {
            const found = (await listTables(source, m.plan, m.database)).filter(isWanted);
            const ranges = await rangesToCopy(target, generation, found);
            const how = { replication: m.method === 'replication', sizes, ranges };
            return { found, relations: await planRelations(source, target.version, found, how) };
          });
          await replaceRelations(source, target, generation, tables.found);
          await writeCopyPlan(target, generation, tables.relations, planUnits(tables.relations, sizes));
          await empty(
            target,
            tables.relations.filter(({ split }) => split),
          );
          await recordEvent(target, planned(generation), `Planned the copy of ${tables.relations.length} tables.`);
        });
        return readPlan(target, generation);
      });
    },

    /** One of several lanes that copy at the same time. Ends when no unit is unfinished, whoever has it. */
    async copyTables(m: Migration, generation: number, lane: number): Promise<LaneProgress> {
      const progress: LaneProgress = { tables: 0, rows: 0, bytes: 0, current: null };
      await heartbeating(
        () => ({ ...progress }),
        () =>
          withSession(openLaneTarget(deps, m, 'copy'), 'copying tables', (target) =>
            withSession(openLaneSource(deps, m, 'copy'), 'copying tables', async (source) => {
              const self = { kind: 'copy', lane };
              await takeOverLane(target, self, [source, target]);
              await runCopyLane(source, target, generation, progress, async () => {
                if (m.method !== 'replication') return new Set<number>();
                return withSession(openSource(deps, m, 'probe'), 'looking for TRUNCATE', (probe) =>
                  truncatedInStream(probe, generationName(m.id, generation)),
                );
              });
              await flushLane(target, self);
            }),
          ),
      );
      return progress;
    },

    /** Asserts that everything is there, of all generations, in a transaction that is on disk before it answers. */
    async sealCopy(m: Migration, generation: number): Promise<CopyTotals> {
      return withSession(openTarget(deps, m, 'control'), 'sealing the copy', async (target) => {
        await target.transaction(async () => {
          // Also flushes what the lanes committed asynchronously before.
          await target.query('SET LOCAL synchronous_commit = on');
          await requireComplete(target, generation);
          await target.query(
            `UPDATE ${LEDGER_SCHEMA}.generation SET state = 'sealed' WHERE number = $1 AND state = 'open'`,
            [generation],
          );
          await recordEvent(target, SEALED, 'Everything is copied.');
          await ring(target);
        });
        return readTotals(target);
      });
    },
  };
}

/**
 * Before relations of an earlier generation are planned once more: their schema was restored before, so they must still
 * have the same names. Those that are gone are no longer wanted.
 * @throws MigrationError `SchemaFailed` naming a table that was renamed
 */
async function replaceRelations(
  source: Session,
  target: Session,
  generation: number,
  found: readonly Table[],
): Promise<void> {
  const left = await target.query<{ oid: number; schema: string; name: string }>(
    `DELETE FROM ${LEDGER_SCHEMA}.relation WHERE generation = $1 RETURNING oid::float8 AS oid, schema, name`,
    [generation],
  );
  const now = new Map(found.map((table) => [table.oid, table]));
  for (const { oid, schema, name } of left) {
    const table = now.get(oid);
    const label = displayName(schema, name);
    if (table === undefined)
      await recordWarning(
        target,
        'planCopy',
        `Table ${label} was dropped on the source after the start: it is empty on the target.`,
      );
    else if (table.schema !== schema || table.name !== name)
      throw new MigrationError(
        // Renamed back meanwhile: only another snapshot sees that.
        (await isNamed(source, { oid, schema, name })) ? 'SnapshotLost' : 'SchemaFailed',
        `Table ${label} was renamed to ${displayName(table.schema, table.name)} on the source before its rows were copied.`,
        { object: label, next: 'Rename it back on the source, then resolve with retry.' },
      );
  }
}

async function isNamed(source: Session, table: { oid: number; schema: string; name: string }): Promise<boolean> {
  const rows = await source.query(
    `SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE c.oid = $1 AND n.nspname = $2 AND c.relname = $3`,
    [table.oid, table.schema, table.name],
  );
  return rows.length > 0;
}

async function isPlanned(target: Session, generation: number): Promise<boolean> {
  const { found } = await target.one<{ found: boolean }>(
    `SELECT EXISTS (SELECT FROM ${LEDGER_SCHEMA}.event WHERE step = $1) AS found`,
    [planned(generation)],
  );
  return found;
}

const readPlan = (target: Session, generation: number): Promise<CopyPlan> =>
  target.one<CopyPlan>(
    `SELECT (SELECT count(*)::float8 FROM ${LEDGER_SCHEMA}.relation WHERE generation = $1) AS tables,
            (SELECT coalesce(sum(bytes), 0)::float8 FROM ${LEDGER_SCHEMA}.relation WHERE generation = $1) AS bytes,
            count(*) FILTER (WHERE kind = 'copy')::float8 AS units, count(*) FILTER (WHERE kind = 'index')::float8 AS indexes
       FROM ${LEDGER_SCHEMA}.unit WHERE generation = $1`,
    [generation],
  );

const readTotals = (target: Session): Promise<CopyTotals> =>
  target.one<CopyTotals>(
    `SELECT count(DISTINCT relation)::float8 AS tables, coalesce(sum(rows), 0)::float8 AS rows, coalesce(sum(bytes), 0)::float8 AS bytes
       FROM ${LEDGER_SCHEMA}.unit WHERE kind = 'copy'`,
  );

/** @throws MigrationError `NotComplete` naming what is missing. */
async function requireComplete(target: Session, generation: number): Promise<void> {
  const [row] = await target.query<{ state: string }>(
    `SELECT state FROM ${LEDGER_SCHEMA}.generation WHERE number = $1 FOR UPDATE`,
    [generation],
  );
  const state = row?.state ?? 'missing';
  if (!['open', 'sealed', 'streaming'].includes(state))
    throw new MigrationError('NotComplete', `Generation ${generation} cannot be sealed: it is ${state}.`);
  if (!(await isPlanned(target, generation)))
    throw new MigrationError(
      'NotComplete',
      `The copy of generation ${generation} was never planned, so nothing was copied.`,
    );
  const unfinished = await findUnfinished(target, null, ['copy', 'index', 'key']);
  const entries = await target.query<{ label: string }>(
    `SELECT e.label FROM ${LEDGER_SCHEMA}.entry e JOIN ${LEDGER_SCHEMA}.relation r ON r.oid = e.relation
      WHERE e.stage IN ('index', 'key') AND e.state = 'todo' ORDER BY e.position LIMIT ${LIMITS.namesInMessage}`,
  );
  const unplanned = await target.query<{ schema: string; name: string }>(
    `SELECT schema, name FROM ${LEDGER_SCHEMA}.relation r
      WHERE NOT EXISTS (SELECT FROM ${LEDGER_SCHEMA}.unit u WHERE u.relation = r.oid AND u.kind = 'copy') LIMIT ${LIMITS.namesInMessage}`,
  );
  const missing = [
    ...new Set([
      ...unfinished,
      ...entries.map(({ label }) => label),
      ...unplanned.map(({ schema, name }) => displayName(schema, name)),
    ]),
  ];
  if (missing.length > 0)
    throw new MigrationError('NotComplete', `Not finished: ${missing.slice(0, LIMITS.namesInMessage).join(', ')}.`, {
      object: missing[0] ?? null,
    });
}
