import { applicationName, LEDGER_SCHEMA, NAME_PREFIX } from '../src/contract.ts';
import { MigrationError } from '../src/domain/failure.ts';
import type { Migration } from '../src/domain/migration.ts';
import { endSessions } from '../src/postgres/backend.ts';
import type { Session } from '../src/postgres/connection.ts';
import { dropLedger, ledgerExists } from '../src/postgres/ledger.ts';
import { dropPublication } from '../src/postgres/publication.ts';
import { dropSlot } from '../src/postgres/slot.ts';
import { dropSubscription, findSubscriptions } from '../src/postgres/subscription.ts';
import type { ActivityDeps } from './context.ts';
import { openSource, openTarget, withSession } from './context.ts';
import { isFenced, liftFence } from './fence.ts';

export function createUndoActivities(deps: ActivityDeps) {
  return {
    /**
     * Everything of this migration away on both servers; the target's database is kept. It goes by names that only this
     * migration has, so that it works whatever was there. Each side is done even if the other cannot be.
     */
    async undo(m: Migration): Promise<void> {
      const failures: unknown[] = [];
      const attempt = (work: () => Promise<void>) => work().catch((error: unknown) => void failures.push(error));
      await attempt(() => onTarget(deps, m, (target) => undoTarget(target, m)));
      await attempt(() => onTarget(deps, m, (target) => unfence(deps, m, target)));
      await attempt(() => undoSource(deps, m));
      // The ledger knows what the fence is to put back, so it goes last, and only when that has been done.
      if (failures.length === 0) await attempt(() => onTarget(deps, m, (target) => dropOurLedger(target, m)));
      const retryable = failures.find((failure) => failure instanceof MigrationError && failure.retryable);
      if (failures.length > 0) throw retryable ?? failures[0];
    },
  };
}

const prefix = (m: Migration): string => `${NAME_PREFIX}${m.id}_`;

const roles = (m: Migration): string[] =>
  (['holder', 'keep', 'copy', 'index'] as const).map((role) => applicationName(m.id, role));

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

/** Subscriptions first: a walsender would hold the slot. */
async function undoTarget(target: Session, m: Migration): Promise<void> {
  await endSessions(target, m.database, roles(m));
  for (const name of await findSubscriptions(target, prefix(m))) await dropSubscription(target, name);
}

async function unfence(deps: ActivityDeps, m: Migration, target: Session): Promise<void> {
  if ((await isOurs(target, m)) && (await isFenced(target)))
    await withSession(openSource(deps, m, 'control'), 'lifting the fence', (source) => liftFence(source, target));
}

async function dropOurLedger(target: Session, m: Migration): Promise<void> {
  if (await isOurs(target, m)) await dropLedger(target);
}

async function isOurs(target: Session, m: Migration): Promise<boolean> {
  if (!(await ledgerExists(target))) return false;
  const rows = await target.query(`SELECT FROM ${LEDGER_SCHEMA}.migration WHERE id = $1`, [m.id]);
  return rows.length > 0;
}

async function undoSource(deps: ActivityDeps, m: Migration): Promise<void> {
  await withSession(openSource(deps, m, 'control'), 'undoing the migration', async (source) => {
    await endSessions(source, m.database, roles(m));
    const slots = await source.query<{ name: string }>(
      'SELECT slot_name AS name FROM pg_replication_slots WHERE starts_with(slot_name, $1)',
      [prefix(m)],
    );
    for (const { name } of slots) await dropSlot(source, name);
    const publications = await source.query<{ name: string }>(
      'SELECT pubname AS name FROM pg_publication WHERE starts_with(pubname, $1)',
      [prefix(m)],
    );
    for (const { name } of publications) await dropPublication(source, name);
  });
}
