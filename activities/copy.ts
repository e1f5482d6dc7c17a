import { generationName, LEDGER_SCHEMA } from '../src/contract.ts';
import { MigrationError } from '../src/domain/failure.ts';
import { LIMITS } from '../src/domain/limits.ts';
import type { LaneProgress, Migration } from '../src/domain/migration.ts';
import type { Session } from '../src/postgres/connection.ts';
import type { CopySizes } from '../src/postgres/copy-plan.ts';
import { planRelations, planUnits, writeCopyPlan } from '../src/postgres/copy-plan.ts';
import { holdOpenGeneration } from '../src/postgres/generation.ts';
import { displayName, quoteName } from '../src/postgres/identifier.ts';
import { underSnapshot } from '../src/postgres/import-snapshot.ts';
import { recordEvent, recordWarning } from '../src/postgres/ledger.ts';
import { listTables } from '../src/postgres/scope.ts';
import type { Table } from '../src/postgres/scope.ts';
import { truncatedInStream } from '../src/postgres/truncation.ts';
import { findUnfinished } from '../src/postgres/unit.ts';
import type { ActivityDeps } from './context.ts';
import { heartbeating, openSource, openTarget, withSession } from './context.ts';
import { runCopyLane } from './copy-lane.ts';
import { openLaneSource, openLaneTarget, takeOverLane, withBoth } from './lane-sessions.ts';

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
    /** Writes what is to be copied to the ledger. When that is there already, it only answers with the totals. */
    async planCopy(m: Migration, generation: number): Promise<CopyPlan> {
      return withBoth(deps, m, 'control', 'planning the copy', async (source, target) => {
        await target.transaction(async () => {
          await target.query('SET LOCAL synchronous_commit = on');
          // Two attempts at once: the second waits here, and finds the plan of the first.
          const snapshot = await holdOpenGeneration(target, generation, 'UPDATE');
          if (await isPlanned(target, generation)) return;
          const tables = await underSnapshot(source, snapshot, async () => {
            const found = await listTables(source, m.plan, m.database);
            const replication = m.method === 'replication';
            return { found, relations: await planRelations(source, target.version, found, replication, sizes) };
          });
          await writeCopyPlan(target, generation, tables.relations, planUnits(tables.relations, sizes));
          const split = tables.relations.filter((relation) => relation.split);
          if (split.length > 0)
            await target.query(
              `TRUNCATE ${split.map(({ schema, name }) => `ONLY ${quoteName(schema, name)}`).join(', ')}`,
            );
          if (m.method === 'replication') await warnOfUnlogged(target, tables.found);
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
              await takeOverLane(target, { kind: 'copy', lane }, [source, target]);
              await runCopyLane(source, target, generation, progress, async () => {
                if (m.method !== 'replication') return new Set<number>();
                return withSession(openSource(deps, m, 'control'), 'looking for TRUNCATE', (control) =>
                  truncatedInStream(control, generationName(m.id, generation)),
                );
              });
            }),
          ),
      );
      return progress;
    },

    /** Asserts that everything is there, in a transaction that is on disk before it answers. */
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
        });
        return readTotals(target, generation);
      });
    },
  };
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

const readTotals = (target: Session, generation: number): Promise<CopyTotals> =>
  target.one<CopyTotals>(
    `SELECT count(DISTINCT relation)::float8 AS tables, coalesce(sum(rows), 0)::float8 AS rows, coalesce(sum(bytes), 0)::float8 AS bytes
       FROM ${LEDGER_SCHEMA}.unit WHERE generation = $1 AND kind = 'copy'`,
    [generation],
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
  const unfinished = await findUnfinished(target, generation, ['copy', 'index', 'key']);
  const entries = await target.query<{ label: string }>(
    `SELECT e.label FROM ${LEDGER_SCHEMA}.entry e JOIN ${LEDGER_SCHEMA}.relation r ON r.oid = e.relation
      WHERE r.generation = $1 AND e.stage IN ('index', 'key') AND e.state = 'todo' ORDER BY e.position LIMIT ${LIMITS.namesInMessage}`,
    [generation],
  );
  const missing = [...new Set([...unfinished, ...entries.map(({ label }) => label)])];
  if (missing.length > 0)
    throw new MigrationError('NotComplete', `Not finished: ${missing.slice(0, LIMITS.namesInMessage).join(', ')}.`, {
      object: missing[0] ?? null,
    });
}

async function warnOfUnlogged(target: Session, tables: readonly Table[]): Promise<void> {
  const unlogged = tables.filter(({ persistence }) => persistence === 'u');
  if (unlogged.length === 0) return;
  const names = unlogged.slice(0, LIMITS.namesInMessage).map(({ schema, name }) => displayName(schema, name));
  const more = unlogged.length > names.length ? ` and ${unlogged.length - names.length} more` : '';
  await recordWarning(
    target,
    'planCopy',
    `Unlogged tables cannot be published: ${names.join(', ')}${more} arrive as they were when the copy began, without later changes.`,
  );
}
