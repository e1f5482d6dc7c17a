import { applicationName, LEDGER_SCHEMA } from '../src/contract.ts';
import { MigrationError } from '../src/domain/failure.ts';
import type { Migration } from '../src/domain/migration.ts';
import { dropExtras } from '../src/postgres/aiven-extras.ts';
import { endSessions } from '../src/postgres/backend.ts';
import type { Session } from '../src/postgres/connection.ts';
import { readFence } from '../src/postgres/fence.ts';
import type { Leftover } from '../src/postgres/leftovers.ts';
import { dropLeftover, findLeftovers } from '../src/postgres/leftovers.ts';
import { dropLedger, ledgerExists } from '../src/postgres/ledger.ts';
import { allowTruncate } from '../src/postgres/truncate-refusal.ts';
import type { ActivityDeps } from './context.ts';
import { openSource, openTarget, withSession } from './context.ts';
import { lift } from './fence.ts';

export function createUndoActivities(deps: ActivityDeps) {
  return {
    /**
     * Everything of this migration away on both servers; the target's database is kept. It goes by names that only this
     * migration has, so that it works whatever was there. Each side is done even if the other cannot be.
     */
    async undo(m: Migration): Promise<void> {
      await each([
        // A subscription on either side first: its walsender would hold the slot on the other.
        () => onTarget(deps, m, (target) => dropAll(target, m, ['subscription'])),
        () => onTarget(deps, m, (target) => unfence(deps, m, target)),
        () => undoSource(deps, m),
        () => onTarget(deps, m, (target) => dropAll(target, m, ['slot', 'publication'])),
      ]);
      // The ledger knows what the fence is to put back, so it goes last, and only when that has been done.
      await onTarget(deps, m, (target) => dropOurLedger(target, m));
    },

    /**
     * The replications of this migration away on both servers, in either direction, when the target serves. The fence stays,
     * and the ledger, which `finish` needs. Each side is done even if the other cannot be: an old server may be gone, and
     * must not leave a slot on the new one.
     */
    async clearAway(m: Migration): Promise<void> {
      await each([
        () => onTarget(deps, m, (target) => dropAll(target, m, ['subscription'])),
        () => undoSource(deps, m),
        () => onTarget(deps, m, (target) => dropAll(target, m, ['slot', 'publication'])),
        () => onTarget(deps, m, (target) => freeTables(target, m)),
      ]);
    },
  };
}

/** All of them, whatever becomes of the others. @throws the first failure, rather one that passes by itself */
async function each(work: readonly (() => Promise<void>)[]): Promise<void> {
  const failures: unknown[] = [];
  for (const one of work) await one().catch((error: unknown) => void failures.push(error));
  const retryable = failures.find((failure) => failure instanceof MigrationError && failure.retryable);
  if (failures.length > 0) throw retryable ?? failures[0];
}

const roles = (m: Migration): string[] =>
  (['holder', 'keep', 'copy', 'index', 'probe'] as const).map((role) => applicationName(m.id, role));

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

/** Sessions first: a slot that a backend uses cannot be dropped. Those of role `control` are ended already. */
async function dropAll(session: Session, m: Migration, kinds: readonly Leftover['kind'][]): Promise<void> {
  await endSessions(session, m.database, roles(m));
  for (const found of await findLeftovers(session))
    if (found.id === m.id && kinds.includes(found.kind)) await dropLeftover(session, found);
}

async function unfence(deps: ActivityDeps, m: Migration, target: Session): Promise<void> {
  if ((await isOurs(target, m)) && (await readFence(target)) !== null)
    await withSession(openSource(deps, m, 'control'), 'lifting the fence', (source) => lift(deps, m, source, target));
}

async function dropOurLedger(target: Session, m: Migration): Promise<void> {
  if (!(await isOurs(target, m))) return;
  await dropExtras(target);
  await dropLedger(target);
}

async function freeTables(target: Session, m: Migration): Promise<void> {
  if (!(await isOurs(target, m))) return;
  await allowTruncate(target);
  await dropExtras(target);
}

async function isOurs(target: Session, m: Migration): Promise<boolean> {
  if (!(await ledgerExists(target))) return false;
  const rows = await target.query(`SELECT FROM ${LEDGER_SCHEMA}.migration WHERE id = $1`, [m.id]);
  return rows.length > 0;
}

async function undoSource(deps: ActivityDeps, m: Migration): Promise<void> {
  await withSession(openSource(deps, m, 'control'), 'undoing the migration', (source) =>
    dropAll(source, m, ['subscription', 'slot', 'publication']),
  );
}
