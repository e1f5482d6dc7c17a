import { MigrationError } from '../src/domain/failure.ts';
import type { Migration } from '../src/domain/migration.ts';
import type { Session } from '../src/postgres/connection.ts';
import { isFenced, liftFence } from '../src/postgres/fence.ts';
import { dropOwnLedger, isOwnLedger, undoOnSource, undoOnTarget } from '../src/postgres/undo.ts';
import type { ActivityDeps } from './context.ts';
import { openSource, openTarget, withSession } from './context.ts';

export function createUndoActivities(deps: ActivityDeps) {
  return {
    /**
     * Everything of this migration away on both servers; the target's database is kept. It goes by names that only this
     * migration has, so that it works whatever was there. Each side is done even if the other cannot be.
     */
    async undo(m: Migration): Promise<void> {
      const failures: unknown[] = [];
      const attempt = (work: () => Promise<void>) => work().catch((error: unknown) => void failures.push(error));
      await attempt(() => onTarget(deps, m, (target) => undoOnTarget(target, m)));
      await attempt(() => onTarget(deps, m, (target) => unfence(deps, m, target)));
      await attempt(() => undoSource(deps, m));
      // The ledger knows what the fence is to put back, so it goes last, and only when that has been done.
      if (failures.length === 0) await attempt(() => onTarget(deps, m, (target) => dropOwnLedger(target, m.id)));
      const retryable = failures.find((failure) => failure instanceof MigrationError && failure.retryable);
      if (failures.length > 0) throw retryable ?? failures[0];
    },
  };
}

async function onTarget(deps: ActivityDeps, m: Migration, work: (target: Session) => Promise<void>): Promise<void> {
  let opened: Promise<Session>;
  try {
    opened = Promise.resolve(await openTarget(deps, m, 'control'));
  } catch (error) {
    // The database was never made, or somebody has dropped it: then nothing of ours is in it.
    if (error instanceof MigrationError && error.details.sqlstate === '3D000') return;
    throw error;
  }
  await withSession(opened, 'undoing the migration', work);
}

async function unfence(deps: ActivityDeps, m: Migration, target: Session): Promise<void> {
  if ((await isOwnLedger(target, m.id)) && (await isFenced(target)))
    await withSession(openSource(deps, m, 'control'), 'lifting the fence', (source) => liftFence(source, target));
}

async function undoSource(deps: ActivityDeps, m: Migration): Promise<void> {
  await withSession(openSource(deps, m, 'control'), 'undoing the migration', (source) => undoOnSource(source, m));
}
