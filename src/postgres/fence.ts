import { LEDGER_SCHEMA } from '../contract.ts';
import type { Session } from './connection.ts';
import { quoteIdent, quoteLiteral } from './identifier.ts';
import type { LockOut } from './lock-out.ts';
import { admitAgain } from './lock-out.ts';

/** What there was before the fence, so that it can be put back. Booked in the ledger before anything is changed. */
export type BookedFence =
  { kind: 'read-only'; before: string | null } | LockOut | { kind: 'pgbouncer'; databases: string[]; routes: string[] };

/** The step name under which it is booked: `fence` on the source, `target fence` where a rollback fences the target. */
type Booking = 'fence' | 'target fence';

/** Keeps what is booked already: then an earlier attempt has perhaps changed what is there. */
export async function bookFence(target: Session, fence: BookedFence, step: Booking = 'fence'): Promise<void> {
  await target.query(
    `INSERT INTO ${LEDGER_SCHEMA}.event (step, warning, message)
     SELECT $1, false, $2 WHERE NOT EXISTS (SELECT FROM ${LEDGER_SCHEMA}.event WHERE step = $1)`,
    [step, JSON.stringify(fence)],
  );
}

/** What `bookFence` has booked and nobody has put back yet. */
export async function readFence(target: Session, step: Booking = 'fence'): Promise<BookedFence | null> {
  const [booked] = await target.query<{ message: string }>(
    `SELECT message FROM ${LEDGER_SCHEMA}.event WHERE step = $1`,
    [step],
  );
  return booked === undefined ? null : (JSON.parse(booked.message) as BookedFence);
}

export async function forgetFence(target: Session, step: Booking = 'fence'): Promise<void> {
  await target.query(`DELETE FROM ${LEDGER_SCHEMA}.event WHERE step = $1`, [step]);
}

/** Puts back what is booked of a fence on the source server itself; nothing where nothing is booked. */
export async function liftFence(source: Session, target: Session): Promise<void> {
  const fence = await readFence(target);
  if (fence === null) return;
  if (fence.kind === 'read-only') await setReadOnly(source, fence.before);
  if (fence.kind === 'lock-out') await admitAgain(source, fence);
  await forgetFence(target);
}

/** What it changed, for a person. PgBouncer's is put back there: RESUME on its admin console. */
export function fenceName(fence: BookedFence): string {
  if (fence.kind === 'read-only') return 'default_transaction_read_only';
  if (fence.kind === 'lock-out') return 'CONNECT revoked';
  return `PAUSE in PgBouncer, which needs RESUME ${fence.databases.map(quoteIdent).join(', ')} there`;
}

/** What every new session on the database starts with; null: what the server or the role says. */
export async function setReadOnly(session: Session, value: string | null): Promise<void> {
  const { database } = await session.one<{ database: string }>('SELECT current_database() AS database');
  const what =
    value === null
      ? 'RESET default_transaction_read_only'
      : `SET default_transaction_read_only = ${quoteLiteral(value)}`;
  await session.query(`ALTER DATABASE ${quoteIdent(database)} ${what}`);
}

export async function readOnlySetting(session: Session): Promise<string | null> {
  const [row] = await session.query<{ value: string }>(
    `SELECT substr(setting, length('default_transaction_read_only=') + 1) AS value
       FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) AS setting
      WHERE d.datname = current_database() AND s.setrole = 0 AND setting LIKE 'default\\_transaction\\_read\\_only=%'`,
  );
  return row?.value ?? null;
}
