import { LIMITS } from '../domain/limits.ts';
import type { Session } from './connection.ts';
import { tablesAfter } from './failing-change.ts';
import { quoteIdent } from './identifier.ts';
import { freeSlot } from './slot.ts';
import { appliedLsn, subscribedPublications } from './subscription.ts';

export interface WrittenAfter {
  bytes: number;
  /** Some of those that were written to. */
  tables: string[];
}

/**
 * Bytes of row changes in published tables that were committed on the publisher and that the subscriber does not have:
 * what the slots still hold after the subscriptions were disabled, without what was applied and there was no time to
 * confirm. 0 is the proof that nothing was lost. Where the role may not see how far the subscriber has applied, that part
 * is counted too, so the answer is then at most too much.
 */
export async function writtenAfter(
  publisher: Session,
  subscriber: Session,
  names: readonly string[],
): Promise<WrittenAfter> {
  let bytes = 0;
  const tables = new Set<string>();
  for (const name of names) {
    // The walsender notices a moment later than the subscriber that its worker is gone.
    await freeSlot(publisher, name);
    const applied = (await appliedLsn(subscriber, name)) ?? '0/0';
    const publications = await subscribedPublications(subscriber, name);
    const row = await publisher.one<{ bytes: number }>(
      // B carries the LSN of its commit; I, U, D, T are the messages that carry rows (manual, 55.9). Read once: what is
      // used twice is materialized.
      `WITH messages AS (
         SELECT xid::text AS xid, data FROM pg_logical_slot_peek_binary_changes($1, NULL, ${LIMITS.peekChanges},
           'proto_version', '1', 'publication_names', $2)),
       missing AS (
         SELECT xid FROM messages WHERE get_byte(data, 0) = 66
            AND ('x' || encode(substr(data, 2, 8), 'hex'))::bit(64)::bigint >= pg_wal_lsn_diff($3::pg_lsn, '0/0'))
       SELECT coalesce(sum(length(data)), 0)::float8 AS bytes FROM messages
        WHERE get_byte(data, 0) IN (73, 85, 68, 84) AND xid IN (SELECT xid FROM missing)`,
      [name, publications.map(quoteIdent).join(', '), applied],
    );
    bytes += row.bytes;
    if (row.bytes > 0) for (const table of await tablesAfter(publisher, name, publications, applied)) tables.add(table);
  }
  return { bytes, tables: [...tables].slice(0, LIMITS.namesInMessage) };
}
