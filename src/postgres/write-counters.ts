import { NAME_PREFIX } from '../contract.ts';
import { LIMITS } from '../domain/limits.ts';
import type { WriteCounters } from '../domain/migration.ts';
import type { Session } from './connection.ts';

/** What changes with a restart, a crash and a reset of statistics. */
const EPOCH = `concat_ws(' ', pg_postmaster_start_time(), (SELECT stats_reset FROM pg_stat_wal),
  (SELECT stats_reset FROM pg_stat_database WHERE datname = current_database()))`;

/** Null before 15, where counts may be lost, and where the server does not count. */
export async function readWriteCounters(session: Session): Promise<WriteCounters | null> {
  if (session.version < 150000) return null;
  const row = await session.one<WriteCounters & { counts: boolean }>(
    `SELECT current_setting('track_counts')::bool AS counts,
            (SELECT string_agg(concat_ws(' ', n_tup_ins, n_tup_upd, n_tup_del), ', ' ORDER BY relname) FROM pg_stat_sys_tables
              WHERE schemaname = 'pg_catalog' AND relname IN ('pg_largeobject', 'pg_largeobject_metadata')) AS writes,
            ${EPOCH} AS epoch`,
  );
  return row.counts ? { writes: row.writes, epoch: row.epoch } : null;
}

export const sameCounters = (before: WriteCounters, now: WriteCounters | null): boolean =>
  before.writes === now?.writes && before.epoch === now.epoch;

/**
 * What changes with every write to a table: rows that the server has counted, the file that a TRUNCATE or a rewrite
 * replaces, its definition. In the order of `tables`; null where that cannot tell, as in `readWriteCounters`. A session
 * counts after it has committed, and so a version that is the same later means that nothing was written in between, if by
 * then all sessions have counted: `countedAll`.
 */
export async function readTableVersions(
  session: Session,
  tables: readonly { schema: string; name: string }[],
): Promise<(string | null)[]> {
  if (session.version < 150000) return tables.map(() => null);
  const rows = await session.query<{ version: string | null }>(
    `SELECT CASE WHEN current_setting('track_counts')::bool THEN concat_ws(' ', c.oid, c.xmin, pg_relation_filenode(c.oid),
              pg_stat_get_tuples_inserted(c.oid), pg_stat_get_tuples_updated(c.oid), pg_stat_get_tuples_deleted(c.oid),
              (SELECT string_agg(a.xmin::text, ',' ORDER BY attnum) FROM pg_attribute a WHERE attrelid = c.oid AND attnum > 0),
              ${EPOCH}) END AS version
       FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS t (schema, name, n)
       LEFT JOIN pg_namespace s ON s.nspname = t.schema
       LEFT JOIN pg_class c ON c.relnamespace = s.oid AND c.relname = t.name
      ORDER BY t.n`,
    [tables.map(({ schema }) => schema), tables.map(({ name }) => name)],
  );
  return rows.map(({ version }) => version);
}

/**
 * Whether the other sessions of this database have told what they wrote: those that are idle for some seconds have.
 * `superusers`: only those whom our role could not end behind a fence. What our role may not see of a session is nothing
 * that it has told.
 */
export async function countedAll(session: Session, id: string, among: 'all' | 'superusers'): Promise<boolean> {
  const { pending } = await session.one<{ pending: number }>(
    `SELECT count(*)::float8 AS pending FROM pg_stat_activity
      WHERE datname = current_database() AND pid <> pg_backend_pid() AND left(application_name, length($1)) <> $1
        AND coalesce(backend_type, 'hidden from our role') NOT IN ('autovacuum worker', 'walsender')
        AND (state IS DISTINCT FROM 'idle' OR state_change > clock_timestamp() - $2 * interval '1 ms')
        AND ($3 OR backend_type IS DISTINCT FROM 'client backend' OR (NOT current_setting('is_superuser')::bool AND coalesce((SELECT rolsuper FROM pg_roles WHERE oid = usesysid), true)))`,
    [`${NAME_PREFIX}${id}_`, LIMITS.sessionCountsMs, among === 'all'],
  );
  return pending === 0;
}
