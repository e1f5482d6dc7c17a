import { MigrationError } from '../src/domain/failure.ts';
import { LIMITS } from '../src/domain/limits.ts';
import type { LaneProgress } from '../src/domain/migration.ts';
import type { Session } from '../src/postgres/connection.ts';
import { relayCopies } from '../src/postgres/copy-stream.ts';
import { holdOpenGeneration } from '../src/postgres/generation.ts';
import { LOCK_NOT_AVAILABLE, lockAsSeen, underSnapshot } from '../src/postgres/import-snapshot.ts';
import { toMigrationError } from '../src/postgres/sqlstate.ts';
import { copyOf } from '../src/postgres/table-copy.ts';
import { finishTables } from '../src/postgres/table-finish.ts';
import type { CopyUnit, Cursor } from '../src/postgres/unit.ts';
import { claimCopyUnits, findUnfinished, finishIndexUnits, finishUnits } from '../src/postgres/unit.ts';
import { nextPoll } from './context.ts';

/** Copies until no unit of the generation is unfinished: claimed by others is not done, so it waits for those too. */
export async function runCopyLane(
  source: Session,
  target: Session,
  generation: number,
  progress: LaneProgress,
): Promise<void> {
  let cursor: Cursor | null = null;
  for (;;) {
    const last: Cursor | undefined = await copyNext(source, target, generation, cursor, progress);
    if (last === undefined && cursor === null) {
      if ((await findUnfinished(target, generation, ['copy'])).length === 0) return;
      await nextPoll();
    }
    // At the end, again from the top: somebody above us may have died and given a unit back.
    cursor = last ?? null;
  }
}

/**
 * One target transaction: claim, copy, mark as done. Dying anywhere in it leaves everything or nothing.
 * @returns where it is now in the order of units; undefined when nothing after `cursor` could be claimed.
 */
async function copyNext(
  source: Session,
  target: Session,
  generation: number,
  cursor: Cursor | null,
  progress: LaneProgress,
): Promise<Cursor | undefined> {
  const { bytes } = progress;
  let units: CopyUnit[] = [];
  try {
    await target.transaction(async () => {
      const snapshot = await holdOpenGeneration(target, generation);
      units = await claimCopyUnits(target, generation, cursor);
      if (units.length > 0) await copyUnits(source, target, snapshot, units, progress);
    });
    progress.tables += units.filter(({ firstPage }) => (firstPage ?? 0) === 0).length;
  } catch (error) {
    progress.bytes = bytes;
    if (!(error instanceof MigrationError) || error.details.sqlstate !== LOCK_NOT_AVAILABLE || source.closed)
      throw error;
    await nextPoll();
  } finally {
    progress.current = null;
  }
  const last = units.at(-1);
  return last && { bytes: last.bytes, id: last.id };
}

async function copyUnits(
  source: Session,
  target: Session,
  snapshot: string,
  units: readonly CopyUnit[],
  progress: LaneProgress,
): Promise<void> {
  const [first] = units;
  const label = `${first?.label ?? ''}${units.length > 1 ? ` and ${units.length - 1} more` : ''}`;
  progress.current = label;
  const began = performance.now();
  const rows = await onSource(label, () =>
    underSnapshot(source, snapshot, async () => {
      // Waiting for one lock while holding others could deadlock with the application, so a batch gives way.
      if (units.length > 1) await source.query(`SET LOCAL lock_timeout = ${LIMITS.batchLockTimeoutMs}`);
      await lockAsSeen(
        source,
        units.map(({ relation, schema, name }) => ({ oid: relation, schema, name })),
      );
      return relayCopies(source, target, units.map(copyOf), (bytes) => (progress.bytes += bytes));
    }),
  );
  const tiny = units.filter((unit) => unit.tiny);
  if (tiny.length > 0) await finishTables(target, tiny, true);
  const seconds = (performance.now() - began) / 1000 / units.length;
  await finishUnits(
    target,
    units.map(({ id }, index) => ({ id, rows: rows[index] ?? 0 })),
    seconds,
  );
  if (tiny.length > 0)
    await finishIndexUnits(
      target,
      tiny.map(({ relation }) => relation),
    );
  progress.rows += rows.reduce((sum, count) => sum + count, 0);
}

async function onSource<T>(label: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw toMigrationError(error, {
      server: 'source',
      doing: `copying ${label}`,
      object: label,
      otherwise: 'CopyFailed',
    });
  }
}
