import { MigrationError } from '../src/domain/failure.ts';
import { LIMITS } from '../src/domain/limits.ts';
import type { LaneProgress } from '../src/domain/migration.ts';
import { Bell, ring } from '../src/postgres/bell.ts';
import type { Session } from '../src/postgres/connection.ts';
import { relayCopies } from '../src/postgres/copy-stream.ts';
import { holdOpenGeneration } from '../src/postgres/generation.ts';
import type { ChangedTable } from '../src/postgres/import-snapshot.ts';
import {
  LOCK_NOT_AVAILABLE,
  lockAndFindChanged,
  snapshotLost,
  underSnapshot,
} from '../src/postgres/import-snapshot.ts';
import { toMigrationError } from '../src/postgres/sqlstate.ts';
import { copyOf } from '../src/postgres/table-copy.ts';
import { finishTables } from '../src/postgres/table-finish.ts';
import type { CopyUnit, Cursor } from '../src/postgres/unit.ts';
import { claimCopyUnits, findUnfinished, finishIndexUnits, finishUnits } from '../src/postgres/unit.ts';
import { nextPoll, nextPollOr } from './context.ts';

/**
 * Which of the changed tables need no copy, because they were truncated and the stream will empty them on the target.
 * Nothing is known where there is no stream.
 */
export type FindTruncated = () => Promise<ReadonlySet<number>>;

/** Copies until no unit of the generation is unfinished: claimed by others is not done, so it waits for those too. */
export async function runCopyLane(
  source: Session,
  target: Session,
  generation: number,
  progress: LaneProgress,
  findTruncated: FindTruncated,
): Promise<void> {
  const bell = await Bell.on(target);
  let cursor: Cursor | null = null;
  for (;;) {
    const last: Cursor | undefined = await copyNext(source, target, generation, cursor, progress, findTruncated);
    if (last === undefined && cursor === null) {
      if ((await findUnfinished(target, generation, ['copy'])).length === 0) return;
      await nextPollOr(bell);
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
  findTruncated: FindTruncated,
): Promise<Cursor | undefined> {
  const { bytes } = progress;
  let units: CopyUnit[] = [];
  try {
    await target.transaction(async () => {
      const snapshot = await holdOpenGeneration(target, generation);
      units = await claimCopyUnits(target, generation, cursor);
      if (units.length > 0) await copyUnits(source, target, snapshot, units, progress, findTruncated);
    });
    progress.tables += units.filter(({ firstPage, keyRange }) => (firstPage ?? keyRange ?? 0) === 0).length;
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
  findTruncated: FindTruncated,
): Promise<void> {
  const [first] = units;
  const label = `${first?.label ?? ''}${units.length > 1 ? ` and ${units.length - 1} more` : ''}`;
  progress.current = label;
  const began = performance.now();
  const rows = await onSource(label, () =>
    underSnapshot(source, snapshot, async () => {
      // Waiting for one lock while holding others could deadlock with the application, so a batch gives way.
      if (units.length > 1) await source.query(`SET LOCAL lock_timeout = ${LIMITS.batchLockTimeoutMs}`);
      const changed = await lockAndFindChanged(
        source,
        units.map(({ relation, schema, name }) => ({ oid: relation, schema, name })),
      );
      const empty = await requireTruncated(changed, findTruncated);
      const filled = units.filter(({ relation }) => !empty.has(relation));
      const counts = await relayCopies(source, target, filled.map(copyOf), (bytes) => (progress.bytes += bytes));
      return new Map(filled.map(({ id }, index) => [id, counts[index] ?? 0]));
    }),
  );
  const tiny = units.filter((unit) => unit.tiny);
  if (tiny.length > 0) await finishTables(target, tiny, true);
  const seconds = (performance.now() - began) / 1000 / units.length;
  await finishUnits(
    target,
    units.map(({ id }) => ({ id, rows: rows.get(id) ?? 0 })),
    seconds,
  );
  if (tiny.length > 0)
    await finishIndexUnits(
      target,
      tiny.map(({ relation }) => relation),
    );
  // Of tiny tables nobody waits for anything but the last, and a lane rings when it ends.
  if (tiny.length < units.length) await ring(target);
  for (const count of rows.values()) progress.rows += count;
}

/** @throws MigrationError `SnapshotLost` naming those that changed in another way */
async function requireTruncated(changed: readonly ChangedTable[], findTruncated: FindTruncated): Promise<Set<number>> {
  if (changed.length === 0) return new Set();
  const truncated = changed.every(({ sameName }) => sameName) ? await findTruncated() : new Set<number>();
  const lost = changed.filter(({ oid }) => !truncated.has(oid));
  if (lost.length > 0) throw snapshotLost(lost);
  return new Set(changed.map(({ oid }) => oid));
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
