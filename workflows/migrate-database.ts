import { continueAsNew, ContinueAsNew, workflowInfo } from '@temporalio/workflow';
import type { WrittenReport } from '../activities/finish.ts';
import type { StopRequest } from '../src/contract.ts';
import { readFailure } from '../src/domain/application-failure.ts';
import { formatBytes } from '../src/domain/format.ts';
import { LIMITS } from '../src/domain/limits.ts';
import type { Migration, PinnedServers } from '../src/domain/migration.ts';
import { migrationId } from '../src/domain/migration-id.ts';
import type { Method, Plan } from '../src/domain/plan.ts';
import { parsePlan } from '../src/domain/plan.ts';
import type { CutoverReport, DatabaseReport } from '../src/domain/progress.ts';
import { capDatabaseReport } from '../src/domain/progress.ts';
import type { CutOver } from './cut-over.ts';
import { streamUntilCutOver } from './cut-over.ts';
import type { CarriedRun } from './database-run.ts';
import { DatabaseRun } from './database-run.ts';
import { ended, STILL_FENCED, targetServes, undoAtEnd } from './ending.ts';
import { measure, measuring } from './measuring.ts';
import { followBack } from './reversing.ts';
import { sideBySide } from './side-by-side.ts';
import { step } from './step.ts';

/** What the parent gives to one database's migration. */
export interface DatabaseMigrationInput {
  plan: Plan;
  database: string;
  sourceOid: number;
  method: Method;
  servers: PinnedServers;
  searchAttributes: boolean;
  reportEveryMs: number;
  stopRequested: StopRequest | null;
  /** From the run before, when this one goes on streaming with a fresh history. */
  carried?: CarriedRun;
}

/** The number of the first generation, which is the only one unless a snapshot is lost. */
const FIRST = 0;

/** Moves one database. Started by `migrateCluster`, which has validated it. */
export async function migrateDatabase(input: DatabaseMigrationInput): Promise<DatabaseReport> {
  const { workflowId, firstExecutionRunId } = workflowInfo();
  const { database, sourceOid, method, servers } = input;
  // Once more: one that was started by an earlier version lacks what came since.
  const plan = parsePlan(input.plan);
  const m: Migration = {
    id: migrationId(workflowId, firstExecutionRunId),
    workflowId,
    database,
    sourceOid,
    method,
    plan,
    servers,
  };
  const run = new DatabaseRun(m, input, input.carried ?? null);
  try {
    const report = await migrate(run, input);
    run.status.enter(report.status === 'rolled-back' ? 'rolled-back' : 'done', report.message);
    return { ...report, seconds: run.status.seconds() };
  } catch (error) {
    if (error instanceof ContinueAsNew) throw error;
    throw await ended(run, error);
  }
}

/** What is known when the target can be written to. */
export interface Moved {
  written: WrittenReport | undefined;
  /** null where nothing was replicated. */
  cutOver: CutOver | null;
}

async function migrate(run: DatabaseRun, input: DatabaseMigrationInput): Promise<DatabaseReport> {
  const { m } = run;
  const { database } = m;
  const moved = input.carried?.moved ?? (await move(run, input));
  const { written, cutOver } = moved;
  let isBack = false;
  if (cutOver !== null && m.plan.reverse !== false) {
    targetServes(run, cutOver.cutover.fence, false);
    isBack = await followBack(run, cutOver.cutover, () =>
      continueAsNew<typeof migrateDatabase>({ ...input, carried: { ...run.carry(), moved } }),
    );
    run.status.enter('finishing', isBack ? 'The source can be written to.' : 'The source is let go.');
    await run.attempt('dropReverse', `${database}: end the replication back to the source`, m);
  }
  const finished = await run.attempt(
    'finish',
    `${database}: analyze, drop the bookkeeping, restore database settings`,
    m,
  );
  run.compensations.clear();

  const { tables = 0, rows = 0, bytes = 0, warnings = [] } = written ?? {};
  return capDatabaseReport({
    database,
    method: m.method,
    status: isBack ? 'rolled-back' : 'done',
    message: isBack ? ROLLED_BACK : doneMessage(m, tables, rows, cutOver),
    tables,
    rows,
    bytes,
    seconds: {},
    generations: run.status.generations,
    walAfterMarkBytes: cutOver?.walAfterMarkBytes ?? null,
    cutover: cutOver?.cutover ?? null,
    warnings: [...warnings, ...(finished?.warnings ?? []), ...run.warnings],
  });
}

/** Until the target has everything, and clients can be there. */
async function move(run: DatabaseRun, input: DatabaseMigrationInput): Promise<Moved> {
  const { m, status } = run;
  const { database, plan } = m;

  const streams = input.carried !== undefined;
  if (!streams) {
    status.enter('preparing', 'Setting up the database, its snapshot and its schema.');
    await step('recheck', `${database}: check once more that nothing is in the way`, m);
  }
  undoAtEnd(run);
  if (!streams) await step('createDatabase', `${database}: create the database on the target`, m);

  const cutOver =
    m.method === 'schema-only'
      ? await copySchemaOnly(run)
      : await measuring(run, async () => {
          if (!streams) await copyDatabase(run);
          if (m.method !== 'replication') return null;
          if (!streams) await subscribe(run);
          return streamUntilCutOver(run, () =>
            continueAsNew<typeof migrateDatabase>({ ...input, stopRequested: run.stopRequested, carried: run.carry() }),
          );
        });

  status.enter('finishing', cutOver === null ? 'Restoring the last settings.' : 'The target can be written to.');
  if (cutOver !== null) targetServes(run, cutOver.cutover.fence, cutOver.cutover.fence === 'pgbouncer');
  const written = await run.attempt('readReport', `${database}: read what was done, for the report`, m);
  if (cutOver === null) return { written, cutOver };
  await run.attempt('dropReplication', `${database}: drop subscription, slot and publication`, m);
  await leadClientsOver(run, cutOver.cutover);
  if (plan.reverse !== false) {
    const settled = await run.attempt('settle', `${database}: analyze, restore database settings`, m);
    run.warnings.push(...(settled?.warnings ?? []));
  }
  return { written, cutOver };
}

const ROLLED_BACK =
  'It was moved, and went back to the source, which has everything that was written to the target. The target is read-only.';

async function copySchemaOnly(run: DatabaseRun): Promise<null> {
  const { m } = run;
  await run.attempt('copySchema', `${m.database}: copy the schema`, m, FIRST);
  await run.attempt(
    'restoreConstraints',
    `${m.database}: restore indexes, constraints, triggers, owners and grants`,
    m,
  );
  return null;
}

/** All rows, with every index and constraint. */
async function copyDatabase(run: DatabaseRun): Promise<void> {
  const { m, status } = run;
  await copyInGenerations(run);
  status.enter('subscribing', 'Adding foreign keys, triggers, owners and grants.');
  await run.attempt('restoreConstraints', `${m.database}: restore foreign keys, triggers, owners and grants`, m);
  await run.attempt('refreshMaterializedViews', `${m.database}: fill the materialized views`, m, 'empty');
}

/**
 * Copies all rows as one snapshot of the source sees them. When that is lost, what is finished stays with its slot, which
 * has every change since, and the rest is copied under the next snapshot. A dump has no slot: it must be of one snapshot.
 */
async function copyInGenerations(run: DatabaseRun): Promise<void> {
  const { m, status } = run;
  const { database } = m;
  let finished = 0;
  let fruitless = 0;
  for (let generation = FIRST; ; generation += 1) {
    try {
      await copyGeneration(run, generation);
      return;
    } catch (error) {
      const { type, message } = readFailure(error);
      if (type !== 'SnapshotLost' || m.method !== 'replication') throw error;
      const summary = `${database}: keep what is finished, and leave the rest to the next snapshot`;
      const closed = await run.attempt('closeGeneration', summary, m, generation, message);
      // Never skipped, so never undefined.
      if (closed === undefined || closed.sealed) return;
      const finishedNow = closed.finished + closed.ranges;
      fruitless = finishedNow > finished ? 0 : fruitless + 1;
      if (fruitless >= LIMITS.fruitlessGenerations) throw error;
      finished = finishedNow;
      run.warnings.push(`The snapshot was lost, and ${closed.left} tables were copied under the next one: ${message}`);
      status.enter('preparing', `Opening the next snapshot, for what was not finished: ${message}`);
    }
  }
}

/** Its first steps find what an earlier generation has done. */
async function copyGeneration(run: DatabaseRun, generation: number): Promise<void> {
  const { m, status } = run;
  const { database, plan } = m;
  status.countGeneration();
  const slot = m.method === 'replication' ? 'publication, slot and snapshot' : 'a snapshot';
  await run.attempt('openSnapshot', `${database}: open ${slot} on the source`, m, generation);

  await run.underSnapshot(generation, async () => {
    await run.attempt('copySchema', `${database}: copy the schema`, m, generation);
    const planned = await run.attempt('planCopy', `${database}: plan the copy`, m, generation);
    const { tables = 0, bytes = 0, indexes = 0 } = planned ?? {};

    status.enter('copying', `Copying ${tables} tables.`);
    await sideBySide(
      async () => {
        const { copy } = plan.parallelism;
        await run.lanes(copy, `${database}: copy ${tables} tables`, (lane, summary) =>
          step('copyTables', summary, m, generation, lane),
        );
        status.copiedAll({ tables, bytes });
        status.enter('indexing', `Building the last of ${indexes} indexes.`);
      },
      () =>
        run.lanes(plan.parallelism.index, `${database}: build ${indexes} indexes`, (lane, summary) =>
          step('buildIndexes', summary, m, lane),
        ),
    );

    await run.attempt('copyLargeObjects', `${database}: copy the large objects`, m, generation);
    await run.attempt('copySequences', `${database}: copy the sequences`, m, generation);
    if (plan.verify !== 'none')
      await run.attempt('verifyCopied', `${database}: compare the copied rows on both sides`, m, generation);
    await run.attempt('sealCopy', `${database}: assert that nothing is unfinished`, m, generation);
  });
}

/** From here on every change follows. */
async function subscribe(run: DatabaseRun): Promise<void> {
  const { m, status } = run;
  await run.attempt('createSubscription', `${m.database}: subscribe to the source`, m);
  status.enter('catching-up', 'Applying what was written during the copy.');
  await run.attempt('waitForCatchUp', `${m.database}: wait until the target has caught up`, m);
  if (status.generations > 1)
    await run.attempt('restoreForeignKeys', `${m.database}: add the foreign keys that waited for all streams`, m);
  await measure(run);
}

/** Clients that PgBouncer holds go on when it leads to the target. */
async function leadClientsOver(run: DatabaseRun, cutover: CutoverReport): Promise<void> {
  const { m } = run;
  const areHeld = cutover.fence === 'pgbouncer';
  if (!areHeld && !m.plan.stop.awaitSwitch) return;
  const held = areHeld ? ' PgBouncer holds them: change its configuration and RELOAD it;' : '';
  cutover.switchedBy = await run.waitForWord(
    'switched',
    `Lead the clients of ${m.database} to the target.${held} Then send the update switched.`,
  );
  cutover.switchedAt = new Date().toISOString();
  if (!areHeld) return;
  await run.attempt('resumeClients', `${m.database}: let the clients go on in PgBouncer`, m);
  targetServes(run, cutover.fence, false);
}

function doneMessage(m: Migration, tables: number, rows: number, cutOver: CutOver | null): string {
  const what =
    m.method === 'schema-only'
      ? 'The schema was copied, without rows.'
      : `${tables} tables with ${rows} rows were copied.`;
  if (cutOver === null) return what;
  const after =
    cutOver.walAfterMarkBytes === 0
      ? 'Nothing was written to the source after the mark.'
      : `The source wrote ${cutOver.walAfterMarkBytes} bytes of WAL after the mark; rows among them are not on the target.`;
  return [
    what,
    'Then every change followed until the cutover.',
    after,
    comparedMessage(cutOver.cutover),
    STILL_FENCED[cutOver.cutover.fence],
  ]
    .filter((sentence) => sentence !== '')
    .join(' ');
}

function comparedMessage({ verified }: CutOver['cutover']): string {
  if (verified === null) return '';
  const { tables, unchanged, ofTables, bytes } = verified;
  const since =
    unchanged === 0 ? '' : `, ${unchanged} of them while they streamed, and neither side has written to those since`;
  return `${tables} of ${ofTables} tables (${formatBytes(bytes)}) were compared${since}.`;
}
