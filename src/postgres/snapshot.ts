import { setTimeout as delay } from 'node:timers/promises';
import type { Endpoint, Session } from './connection.ts';
import { connect } from './connection.ts';
import { quoteLiteral } from './identifier.ts';
import { createSlot } from './slot.ts';
import { toMigrationError } from './sqlstate.ts';

export interface Holder {
  session: Session;
  pid: number;
  snapshot: string;
  consistentPoint: string | null;
}

export interface HolderOptions {
  endpoint: Endpoint;
  database: string;
  /** Its application_name. */
  name: string;
  /** Creates this slot, whose snapshot is then the exported one; null for a dump. */
  slot: string | null;
  /** Bounds the wait of slot creation for older transactions; no other timeout reaches it. */
  slotLockTimeoutSeconds: number;
  signal: AbortSignal;
}

/**
 * Opens the transaction that the whole copy sees. The backend must be detached, or it ends with this process.
 * All timeouts are off in it: an idle holder was seen killed by each of them.
 */
export async function openHolder(control: Session, options: HolderOptions): Promise<Holder> {
  const { endpoint, database, name, slot, slotLockTimeoutSeconds, signal } = options;
  const session = await connect(endpoint, { database, applicationName: name, replication: slot !== null, signal });
  try {
    if (session.version >= 140000) await session.query('SET client_connection_check_interval = 0');
    await session.query(`SET lock_timeout = '${slotLockTimeoutSeconds}s'`);
    await session.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
    // Whoever takes over from this attempt ends its other session first and then looks for what it has made: so one that
    // was asleep meanwhile makes nothing that nobody would find.
    await control.query('SELECT');
    const created = slot === null ? null : await createSlot(session, control, slot);
    const { snapshot } = await session.one<{ snapshot: string }>('SELECT pg_export_snapshot() AS snapshot');
    return { session, pid: session.pid, snapshot, consistentPoint: created?.consistentPoint ?? null };
  } catch (error) {
    session.destroy();
    throw error;
  }
}

/** How long the holder outlives the last keep session, and how long it lives at all. */
export interface Lease {
  seconds: number;
  mostSeconds: number;
}

/**
 * Leaves the holder to the server: a busy backend does not notice that its client is gone. It ends by itself when no
 * session named `keepName` was there for the lease. The name is compared as a whole: with a pattern, two orphaned
 * holders kept each other alive for ever.
 */
export async function detachHolder(holder: Holder, control: Session, keepName: string, lease: Lease): Promise<void> {
  const loop = `DO $holder$ DECLARE seen timestamptz := clock_timestamp(); BEGIN LOOP
    PERFORM pg_sleep(1); PERFORM pg_stat_clear_snapshot();
    IF EXISTS (SELECT FROM pg_stat_activity WHERE application_name = ${quoteLiteral(keepName)}) THEN seen := clock_timestamp(); END IF;
    EXIT WHEN clock_timestamp() - seen > interval '${lease.seconds} seconds'
      OR clock_timestamp() - transaction_timestamp() > interval '${lease.mostSeconds} seconds';
  END LOOP; END $holder$`;
  let failure: unknown = null;
  holder.session.client.query(loop).catch((error: unknown) => {
    failure = error;
  });
  for (;;) {
    const running = await control.query(
      `SELECT FROM pg_stat_activity WHERE pid = $1 AND state = 'active' AND query LIKE 'DO $holder$%'`,
      [holder.pid],
    );
    if (running.length > 0) break;
    // Nothing was copied under it yet, so what passes by itself is no lost snapshot: the next attempt opens another.
    if (failure !== null) throw toMigrationError(failure, { server: 'source', doing: 'leaving the snapshot to it' });
    await delay(20);
  }
  holder.session.destroy();
}
