import type { WriteCounters } from '../domain/migration.ts';
import type { Session } from './connection.ts';

/** Null before 15, where counts may be lost, and where the server does not count. */
export async function readWriteCounters(session: Session): Promise<WriteCounters | null> {
  if (session.version < 150000) return null;
  const row = await session.one<WriteCounters & { counts: boolean }>(
    `SELECT current_setting('track_counts')::bool AS counts,
            (SELECT string_agg(concat_ws(' ', n_tup_ins, n_tup_upd, n_tup_del), ', ' ORDER BY relname) FROM pg_stat_sys_tables
              WHERE schemaname = 'pg_catalog' AND relname IN ('pg_largeobject', 'pg_largeobject_metadata')) AS writes,
            concat_ws(' ', pg_postmaster_start_time(), (SELECT stats_reset FROM pg_stat_wal),
              (SELECT stats_reset FROM pg_stat_database WHERE datname = current_database())) AS epoch`,
  );
  return row.counts ? { writes: row.writes, epoch: row.epoch } : null;
}

export const sameCounters = (before: WriteCounters, now: WriteCounters | null): boolean =>
  before.writes === now?.writes && before.epoch === now.epoch;
