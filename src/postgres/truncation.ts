import { setTimeout as delay } from 'node:timers/promises';
import { LEDGER_SCHEMA } from '../contract.ts';
import { LIMITS } from '../domain/limits.ts';
import type { Session } from './connection.ts';
import { displayName, quoteIdent } from './identifier.ts';
import { sqlstateOf } from './sqlstate.ts';

/** SQLSTATE of a slot that somebody else reads at this moment, here another lane with the same question. */
const IN_USE = '55006';

/**
 * Oids of the tables that were truncated after the slot's beginning, as its own stream will tell the target. Whatever
 * such a table held before does not matter: the stream empties it on the target, and brings all that came after.
 * Reads at most `LIMITS.peekChanges` changes; a table that is not among them counts as not truncated.
 */
export async function truncatedInStream(source: Session, slot: string): Promise<Set<number>> {
  await untilFlushed(source);
  for (;;) {
    try {
      const rows = await source.query<{ oid: number }>(
        // Truncate, of the protocol's version 1 (manual, 55.9): 'T', count (int4), options (int1), oids (int4 each).
        `SELECT DISTINCT ('x' || encode(substring(data FROM 7 + 4 * n FOR 4), 'hex'))::bit(32)::bigint::float8 AS oid
           FROM pg_logical_slot_peek_binary_changes($1, NULL, ${LIMITS.peekChanges}, 'proto_version', '1', 'publication_names', $2),
                generate_series(0, ('x' || encode(substring(data FROM 2 FOR 4), 'hex'))::bit(32)::int - 1) AS n
          WHERE get_byte(data, 0) = ascii('T')`,
        [slot, quoteIdent(slot)],
      );
      return new Set(rows.map(({ oid }) => oid));
    } catch (error) {
      if (sqlstateOf(error) !== IN_USE) throw error;
      await delay(LIMITS.drainPollMs);
    }
  }
}

/** Decoding sees what is flushed; a commit that is not waits for the WAL writer, with asynchronous commit. */
async function untilFlushed(source: Session): Promise<void> {
  const { lsn } = await source.one<{ lsn: string }>('SELECT pg_current_wal_insert_lsn()::text AS lsn');
  // The insert position may lie behind a page boundary that is flushed only with the next record.
  for (const giveUpAt = Date.now() + LIMITS.gateSampleMs; Date.now() < giveUpAt; await delay(LIMITS.drainPollMs)) {
    const { flushed } = await source.one<{ flushed: boolean }>(
      'SELECT pg_current_wal_flush_lsn() >= $1::pg_lsn AS flushed',
      [lsn],
    );
    if (flushed) return;
  }
}

/**
 * Published tables that have another file than the snapshot saw, on a server before 11, whose streams are silent about
 * TRUNCATE: the target has kept their rows. VACUUM FULL and CLUSTER write a new file too, and lose nothing.
 */
export async function perhapsTruncated(source: Session, target: Session): Promise<string[]> {
  if (source.version >= 110000) return [];
  const copied = await target.query<{ oid: number; filenode: string }>(
    `SELECT oid::float8 AS oid, filenode FROM ${LEDGER_SCHEMA}.relation WHERE published`,
  );
  const rewritten = await source.query<{ schema: string; name: string }>(
    `SELECT n.nspname AS schema, c.relname AS name FROM unnest($1::oid[], $2::text[]) AS copied (oid, filenode)
       JOIN pg_class c ON c.oid = copied.oid JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE pg_relation_filenode(c.oid)::text IS DISTINCT FROM copied.filenode ORDER BY 1, 2`,
    [copied.map(({ oid }) => oid), copied.map(({ filenode }) => filenode)],
  );
  return rewritten.map(({ schema, name }) => displayName(schema, name));
}
