import { LEDGER_SCHEMA } from '../contract.ts';
import type { Session } from './connection.ts';
import { endSessions } from './backend.ts';
import { ledgerExists } from './ledger.ts';
import { dropPublication } from './publication.ts';
import { dropSlot } from './slot.ts';
import { sqlstateOf } from './sqlstate.ts';
import { dropSubscription } from './subscription.ts';

/** In the order in which they can be dropped: a subscription's walsender, or a holder, would hold the slot. */
export const LEFTOVER_KINDS = ['subscription', 'session', 'slot', 'publication'] as const;

/** Something on a server that bears a migration's name. */
export interface Leftover {
  kind: (typeof LEFTOVER_KINDS)[number];
  name: string;
  /** Of the migration: its 12 hex digits. */
  id: string;
  database: string;
  /** The backend of a session; the reader of a slot. */
  pid: number | null;
}

/**
 * What bears the name of a migration. Publications are those of the connected database, since no other one shows them;
 * all else is of the whole server.
 */
export function findLeftovers(session: Session): Promise<Leftover[]> {
  return session.query<Leftover>(
    `SELECT kind, name, substr(name, 11, 12) AS id, database, pid FROM (
       SELECT 'subscription' AS kind, subname::text AS name, datname::text AS database, NULL::int AS pid
         FROM pg_subscription JOIN pg_database d ON d.oid = subdbid
       UNION ALL
       SELECT 'session', application_name, datname::text, pid FROM pg_stat_activity
        WHERE datname IS NOT NULL AND pid <> pg_backend_pid()
       UNION ALL
       SELECT 'slot', slot_name::text, database::text, active_pid FROM pg_replication_slots WHERE database IS NOT NULL
       UNION ALL
       SELECT 'publication', pubname::text, current_database()::text, NULL FROM pg_publication
     ) AS found
     WHERE name ~ CASE kind WHEN 'session' THEN '^pgtransit_[0-9a-f]{12}_(holder|keep|copy|index|control|probe)$'
                            ELSE '^pgtransit_[0-9a-f]{12}_[grk][0-9]+$' END
     ORDER BY array_position($1::text[], kind), name, pid`,
    [LEFTOVER_KINDS],
  );
}

/** Drops it when it is there. `session`: on its server; in its database where it is a subscription or a publication. */
export function dropLeftover(session: Session, { kind, name, database }: Leftover): Promise<void> {
  switch (kind) {
    case 'subscription':
      return dropSubscription(session, name);
    case 'session':
      return endSessions(session, database, [name]);
    case 'slot':
      return dropSlot(session, name);
    case 'publication':
      return dropPublication(session, name);
  }
}

export interface LedgerOwner {
  id: string;
  workflowId: string;
}

/** Whose ledger the connected database holds. `unreadable`: it was made by somebody else, or by another role. */
export async function findLedgerOwner(target: Session): Promise<LedgerOwner | 'unreadable' | null> {
  if (!(await ledgerExists(target))) return null;
  try {
    const sql = `SELECT id, workflow_id AS "workflowId" FROM ${LEDGER_SCHEMA}.migration LIMIT 1`;
    const [owner] = await target.query<LedgerOwner>(sql);
    return owner ?? 'unreadable';
  } catch (error) {
    if (['42P01', '42703', '42501'].includes(sqlstateOf(error) ?? '')) return 'unreadable';
    throw error;
  }
}
