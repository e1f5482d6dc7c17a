import { NAME_PREFIX } from '../contract.ts';
import type { Session } from './connection.ts';

export interface TransactionInFlight {
  xid: string;
  /** For a person. */
  who: string;
}

/**
 * Those that have written on the session's database and not ended, prepared ones too, but for ours. Vacuum writes nothing
 * that is replicated.
 */
export const transactionsInFlight = (session: Session, id: string): Promise<TransactionInFlight[]> =>
  session.query<TransactionInFlight>(
    `SELECT backend_xid::text AS xid, format('the transaction of pid %s (%I)', pid, usename) AS who FROM pg_stat_activity
      WHERE datname = current_database() AND backend_xid IS NOT NULL AND pid <> pg_backend_pid()
        AND backend_type IS DISTINCT FROM 'autovacuum worker' AND left(application_name, length($1)) <> $1
     UNION ALL
     SELECT transaction::text, format('the prepared transaction %L', gid) FROM pg_prepared_xacts WHERE database = current_database()
      ORDER BY 1`,
    [`${NAME_PREFIX}${id}_`],
  );
