import type { Session } from '../postgres/connection.ts';
import { displayName, quoteIdent } from '../postgres/identifier.ts';
import { redact } from '../postgres/sqlstate.ts';
import type { Named } from './catalog.ts';
import { USER_SCHEMA } from './catalog.ts';
import type { Seen } from './check.ts';

/** Who holds a table for himself: even its size can then not be asked for, and pg_dump would wait as long. */
export async function lockedTables(source: Session): Promise<Seen[]> {
  const rows = await source.query<Named & { pid: number; user: string | null; query: string | null }>(
    `SELECT DISTINCT n.nspname AS schema, c.relname AS name, l.pid, a.usename AS user, left(a.query, 80) AS query
       FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
       LEFT JOIN pg_stat_activity a ON a.pid = l.pid
      WHERE l.mode = 'AccessExclusiveLock' AND l.granted AND l.pid <> pg_backend_pid()
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND ${USER_SCHEMA}
      ORDER BY 1, 2`,
  );
  return rows.map(({ schema, name, pid, user, query }) => ({
    object: displayName(schema, name),
    message: `Backend ${pid} of ${quoteIdent(user ?? '')} holds the table for itself, so it cannot be looked at. Its latest statement: ${redact(query ?? '')}`,
    remedy: `SELECT pg_terminate_backend(${pid}); -- unless it ends soon by itself`,
  }));
}
