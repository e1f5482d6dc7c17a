import { setTimeout as delay } from 'node:timers/promises';
import { LIMITS } from '../domain/limits.ts';
import { MigrationError } from '../domain/failure.ts';
import type { Session } from './connection.ts';
import { quoteIdent } from './identifier.ts';
import { sqlstateOf } from './sqlstate.ts';

export interface CreatedSlot {
  /** Where decoding begins: changes that commit after it are not in the snapshot, and the slot has them all. */
  consistentPoint: string;
}

/**
 * Creates a logical slot inside the walsender's transaction, whose snapshot becomes that of the slot.
 * @throws MigrationError `SlotBlocked` when older transactions did not end in time, naming them
 */
export async function createSlot(walsender: Session, control: Session, name: string): Promise<CreatedSlot> {
  try {
    const row = await walsender.one<{ consistent_point: string }>(
      `CREATE_REPLICATION_SLOT ${quoteIdent(name)} LOGICAL pgoutput USE_SNAPSHOT`,
    );
    return { consistentPoint: row.consistent_point };
  } catch (error) {
    const sqlstate = sqlstateOf(error);
    if (sqlstate === '55P03') throw new MigrationError('SlotBlocked', await describeBlockers(control), { sqlstate });
    // The name is ours alone, and it was free a moment ago: an attempt that was taken for dead goes on beside this one.
    if (sqlstate === '42710')
      throw new MigrationError('ServerBusy', `Another attempt of this step made the slot ${name} at the same time.`, {
        object: name,
        sqlstate,
      });
    throw error;
  }
}

/** Slot creation waits for every transaction that has a transaction id, of any database, prepared ones included. */
async function describeBlockers(control: Session): Promise<string> {
  const blockers = await control.query<{ what: string }>(
    `SELECT xact_start AS since, format('pid %s of %s in %s', pid, usename, datname) ||
            CASE WHEN xact_start IS NULL THEN '' ELSE format(' (%s, begun %s ago)', state, date_trunc('second', clock_timestamp() - xact_start)) END AS what
       FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
     UNION ALL
     SELECT prepared, format('prepared transaction %L of %s in %s (prepared %s ago)', gid, owner, database, date_trunc('second', clock_timestamp() - prepared))
       FROM pg_prepared_xacts
     ORDER BY since LIMIT ${LIMITS.namesInMessage}`,
  );
  const list = blockers.map(({ what }) => what).join('; ');
  return `The replication slot cannot be created while older transactions run on the ${control.endpoint.server}: ${list || 'they have ended by now'}.`;
}

/**
 * Creates a logical slot whose snapshot nobody needs. As the other one, it waits for every transaction that is under way.
 * @throws MigrationError `SlotBlocked` when they did not end in time
 */
export async function createSlotAlone(session: Session, name: string): Promise<void> {
  try {
    await session.transaction(async () => {
      await session.query(`SET LOCAL lock_timeout = '${LIMITS.slotLockTimeoutSeconds}s'`);
      await session.query(`SELECT pg_create_logical_replication_slot($1, 'pgoutput')`, [name]);
    });
  } catch (error) {
    const sqlstate = sqlstateOf(error);
    if (sqlstate === '55P03') throw new MigrationError('SlotBlocked', await describeBlockers(session), { sqlstate });
    throw error;
  }
}

export interface SlotState {
  active: boolean;
  /** Until somebody has read from the slot, its consistent point. */
  confirmed: string | null;
  /** Why the server can no longer serve it, e.g. `wal_status = lost`; null while it can. */
  lost: string | null;
}

export async function readSlot(source: Session, name: string): Promise<SlotState | null> {
  const [row] = await source.query<{
    active: boolean;
    confirmed: string | null;
    wal_status: string | null;
    reason: string | null;
  }>(
    `SELECT active, confirmed_flush_lsn::text AS confirmed, to_jsonb(s)->>'wal_status' AS wal_status, to_jsonb(s)->>'invalidation_reason' AS reason
       FROM pg_replication_slots s WHERE slot_name = $1`,
    [name],
  );
  if (row === undefined) return null;
  const lost =
    row.reason !== null ? `invalidated: ${row.reason}` : row.wal_status === 'lost' ? 'its WAL was removed' : null;
  return { active: row.active, confirmed: row.confirmed, lost };
}

/** Waits until nobody reads the slot. A walsender that does not notice that its reader is gone is ended in the end. */
export async function freeSlot(source: Session, name: string): Promise<void> {
  for (const patientUntil = Date.now() + LIMITS.workerPatienceMs; ; await delay(LIMITS.drainPollMs)) {
    const [slot] = await source.query<{ pid: number | null }>(
      'SELECT active_pid AS pid FROM pg_replication_slots WHERE slot_name = $1',
      [name],
    );
    if (slot === undefined || slot.pid === null) return;
    if (Date.now() > patientUntil) await source.query('SELECT pg_terminate_backend($1)', [slot.pid]);
  }
}

/** Drops the slot when it is there; ends a walsender that still uses it. */
export async function dropSlot(source: Session, name: string): Promise<void> {
  for (;;) {
    const [slot] = await source.query<{ pid: number | null }>(
      'SELECT active_pid AS pid FROM pg_replication_slots WHERE slot_name = $1',
      [name],
    );
    if (slot === undefined) return;
    if (slot.pid !== null) await source.query('SELECT pg_terminate_backend($1)', [slot.pid]);
    try {
      await source.query('SELECT pg_drop_replication_slot($1)', [name]);
      return;
    } catch (error) {
      // 55006: still in use, 42704: somebody else dropped it in between.
      if (!['55006', '42704'].includes(sqlstateOf(error) ?? '')) throw error;
    }
    await delay(LIMITS.pollMs / 5);
  }
}
