import { applicationName, LEDGER_SCHEMA, NAME_PREFIX } from '../contract.ts';
import { endSessions } from './backend.ts';
import type { Session } from './connection.ts';
import { dropLedger, ledgerExists } from './ledger.ts';
import { dropPublication } from './publication.ts';
import { dropSlot } from './slot.ts';
import { dropSubscription, findSubscriptions } from './subscription.ts';

/** Whose things are to go: they bear its id in their names, so that nothing of another one is touched. */
interface Owner {
  /** 12 hex digits. */
  id: string;
  database: string;
}

const prefix = (id: string): string => `${NAME_PREFIX}${id}_`;

const sessions = (id: string): string[] =>
  (['holder', 'keep', 'copy', 'index'] as const).map((role) => applicationName(id, role));

/** Subscriptions first: a walsender would hold the slot. The ledger stays, since it knows what a fence is to put back. */
export async function undoOnTarget(target: Session, { id, database }: Owner): Promise<void> {
  await endSessions(target, database, sessions(id));
  for (const name of await findSubscriptions(target, prefix(id))) await dropSubscription(target, name);
}

export async function undoOnSource(source: Session, { id, database }: Owner): Promise<void> {
  await endSessions(source, database, sessions(id));
  const slots = await source.query<{ name: string }>(
    'SELECT slot_name AS name FROM pg_replication_slots WHERE left(slot_name, length($1)) = $1',
    [prefix(id)],
  );
  for (const { name } of slots) await dropSlot(source, name);
  const publications = await source.query<{ name: string }>(
    'SELECT pubname AS name FROM pg_publication WHERE left(pubname, length($1)) = $1',
    [prefix(id)],
  );
  for (const { name } of publications) await dropPublication(source, name);
}

export async function isOwnLedger(target: Session, id: string): Promise<boolean> {
  if (!(await ledgerExists(target))) return false;
  const rows = await target.query(`SELECT FROM ${LEDGER_SCHEMA}.migration WHERE id = $1`, [id]);
  return rows.length > 0;
}

export async function dropOwnLedger(target: Session, id: string): Promise<void> {
  if (await isOwnLedger(target, id)) await dropLedger(target);
}
