import type { Session } from './connection.ts';
import { readSubscriptions } from './subscription.ts';

export interface Lag {
  /** WAL that the target has not confirmed as applied and flushed; the worst of all slots. Null before it streams. */
  lagBytes: number | null;
  problem: string | null;
}

/** A look for people; the gate and the drain have stricter tests of their own. */
export async function readLag(source: Session, target: Session, names: readonly string[]): Promise<Lag> {
  const slots = await source.query<{
    name: string;
    lag: number | null;
    status: string | null;
  }>(
    `SELECT slot_name AS name, to_jsonb(s)->>'wal_status' AS status,
            greatest(pg_wal_lsn_diff(pg_current_wal_flush_lsn(), confirmed_flush_lsn), 0)::float8 AS lag
       FROM pg_replication_slots s WHERE slot_name = ANY ($1)`,
    [names],
  );
  const subscribed = await target.query('SELECT FROM pg_subscription WHERE subname = ANY ($1)', [names]);
  const lost = slots.find(({ status }) => status === 'lost');
  if (lost !== undefined)
    return {
      lagBytes: null,
      problem: `Slot ${lost.name} is lost: the source has removed WAL that it needs.`,
    };
  const gone = names.find((name) => !slots.some((slot) => slot.name === name));
  if (gone !== undefined) return { lagBytes: null, problem: `Slot ${gone} is not on the source any more.` };
  if (subscribed.length === 0) return { lagBytes: null, problem: null };
  const lagBytes = Math.max(...slots.map(({ lag }) => lag ?? 0));
  const health = await readSubscriptions(target, names);
  const failing = (health.applyErrors ?? 0) > 0 && !health.ready;
  return {
    lagBytes,
    problem: failing
      ? `The target cannot apply a change (${health.applyErrors ?? 0} errors so far, ${health.waitingFor}); its server log names the relation and the row.`
      : null,
  };
}

/**
 * WAL that the slots of a migration keep on the source, in bytes; null: it has none. By their names, since a slot keeps
 * WAL from the moment at which its making begins, before it is in the ledger.
 */
export async function readRetainedWal(source: Session, prefix: string): Promise<number | null> {
  const { bytes } = await source.one<{ bytes: number | null }>(
    `SELECT max(pg_wal_lsn_diff(pg_current_wal_flush_lsn(), restart_lsn))::float8 AS bytes
       FROM pg_replication_slots WHERE left(slot_name, length($1)) = $1`,
    [prefix],
  );
  return bytes;
}

/**
 * Writes a message into the WAL and waits until it is on disk, and with it everything that was committed before, also
 * asynchronously. Returns the position that a slot has confirmed when it has confirmed all of that.
 */
export async function emitMark(source: Session, id: string): Promise<string> {
  await source.query('SET synchronous_commit = on');
  await source.query(`SELECT pg_logical_emit_message(true, 'pgtransit', $1)`, [id]);
  // A new statement: within the first one the message is not flushed yet. Flush, not insert: the insert position may
  // lie behind a page boundary that nobody confirms for seconds.
  return flushLsn(source);
}

/** Servers write positions with or without leading zeros, depending on their version. */
export const sameLsn = (left: string | null, right: string | null): boolean =>
  left !== null && right !== null && lsnNumber(left) === lsnNumber(right);

/** Of a difference or a rate, where a part in 2^53 is nothing. */
export const bytesOf = (lsn: string): number => Number(lsnNumber(lsn));

/** In bytes. */
export function lsnNumber(lsn: string): bigint {
  const [high = '0', low = '0'] = lsn.split('/');
  return (BigInt(`0x${high}`) << 32n) | BigInt(`0x${low}`);
}

export const flushLsn = async (source: Session): Promise<string> =>
  (await source.one<{ lsn: string }>('SELECT pg_current_wal_flush_lsn()::text AS lsn')).lsn;

/** The position so many bytes earlier. Not the server's arithmetic, which came with 14. */
export function lsnBefore(lsn: string, bytes: number): string {
  const position = lsnNumber(lsn) - BigInt(Math.ceil(bytes));
  // More bytes than were ever written: then nothing has to be confirmed.
  if (position < 0n) return '0/0';
  return `${(position >> 32n).toString(16)}/${(position & 0xffffffffn).toString(16)}`;
}

/** How far the slowest of the slots is confirmed; null while one is missing. */
export async function confirmedLsn(source: Session, names: readonly string[]): Promise<string | null> {
  const row = await source.one<{ slots: number; lsn: string | null }>(
    // Positions have a min() since 13.
    `SELECT count(*)::float8 AS slots, (array_agg(confirmed_flush_lsn ORDER BY confirmed_flush_lsn))[1]::text AS lsn FROM pg_replication_slots WHERE slot_name = ANY ($1)`,
    [names],
  );
  return row.slots < names.length ? null : row.lsn;
}

/** Bytes that the slowest of the slots has still to confirm up to `lsn`; 0: all have. Null: a slot is missing. */
export async function bytesUnconfirmed(source: Session, names: readonly string[], lsn: string): Promise<number | null> {
  const row = await source.one<{ slots: number; bytes: number | null }>(
    `SELECT count(*)::float8 AS slots, max(greatest(pg_wal_lsn_diff($2::pg_lsn, confirmed_flush_lsn), 0))::float8 AS bytes
       FROM pg_replication_slots WHERE slot_name = ANY ($1)`,
    [names, lsn],
  );
  return row.slots < names.length ? null : (row.bytes ?? 0);
}
