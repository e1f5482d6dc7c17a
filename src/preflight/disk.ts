import { LIMITS } from '../domain/limits.ts';
import type { Session } from '../postgres/connection.ts';
import { quoteIdent } from '../postgres/identifier.ts';
import type { ClusterContext, Seen, SourceDatabase } from './check.ts';
import { duration, size } from './units.ts';

/**
 * No function of PostgreSQL tells the free space of a disk. The extension system_stats does; running `df` by COPY FROM
 * PROGRAM would too, but it is what intruders do, and sets off alarms. So without the extension, the figure that is
 * needed is told instead.
 */
async function freeBytes(session: Session): Promise<number | null> {
  const [extension] = await session.query<{ schema: string }>(
    `SELECT n.nspname AS schema FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
      WHERE e.extname = 'system_stats' AND pg_has_role('pg_read_all_settings', 'USAGE')
        AND EXISTS (SELECT FROM pg_proc p WHERE p.pronamespace = n.oid AND p.proname = 'pg_sys_disk_info'
                       AND has_function_privilege(p.oid, 'EXECUTE'))`,
  );
  if (extension === undefined) return null;
  const [disk] = await session.query<{ free: number | null }>(
    // Named available_space before 2.0. The disk of the data directory is the one mounted at its longest prefix.
    `SELECT coalesce(j.row ->> 'free_space', j.row ->> 'available_space')::float8 AS free
       FROM ${quoteIdent(extension.schema)}.pg_sys_disk_info() AS d, to_jsonb(d) AS j (row)
      WHERE starts_with(current_setting('data_directory') || '/', rtrim(d.mount_point, '/') || '/')
      ORDER BY length(d.mount_point) DESC LIMIT 1`,
  );
  return disk?.free ?? null;
}

const total = (databases: readonly SourceDatabase[]): number => databases.reduce((sum, { bytes }) => sum + bytes, 0);

/** What the source writes while rows are copied, when it goes on as it did since its statistics began; null before 14. */
export async function expectedWal({
  source,
  databases,
}: Pick<ClusterContext, 'source' | 'databases'>): Promise<{ seconds: number; bytes: number } | null> {
  const seconds = total(databases) / LIMITS.assumedCopyBytesPerSecond;
  if (source.version < 140000) return null;
  const { rate } = await source.one<{ rate: number }>(
    `SELECT (wal_bytes / greatest(extract(epoch FROM clock_timestamp() - stats_reset), 60))::float8 AS rate FROM pg_stat_wal`,
  );
  return { seconds, bytes: rate * seconds };
}

/** A slot that nobody reads keeps all WAL. */
export async function sourceDisk(context: ClusterContext): Promise<Seen[]> {
  const expected = await expectedWal(context);
  if (expected === null) return [];
  const needed = expected.bytes * 2;
  const free = await freeBytes(context.source);
  const what = `While rows are copied, for about ${duration(expected.seconds)}, the slots keep what the source writes, about ${size(expected.bytes)} of WAL at its usual rate`;
  if (free !== null && free < needed)
    return [
      {
        message: `${what}, but its disk has ${size(free)} free.`,
        remedy: `Make room for ${size(needed)}, or migrate when less is written.`,
      },
    ];
  return free === null && needed > LIMITS.diskWorthMentioningBytes
    ? [{ ...notTold, message: `${what}; how much its disk has free, PostgreSQL does not tell.` }]
    : [];
}

/** Rows and indexes as on the source, and what the server writes to get there. */
const TARGET_FACTOR = 1.3;

export async function targetDisk({ target, databases }: ClusterContext): Promise<Seen[]> {
  const needed = total(databases) * TARGET_FACTOR;
  const free = await freeBytes(target);
  const what = `The target needs about ${size(needed)}, ${TARGET_FACTOR} times what the databases have`;
  if (free !== null && free < needed)
    return [
      {
        message: `${what}, but its disk has ${size(free)} free.`,
        remedy: `Give the target a disk with ${size(needed)} free, or exclude databases or tables.`,
      },
    ];
  return free === null && needed > LIMITS.diskWorthMentioningBytes
    ? [{ ...notTold, message: `${what}; how much its disk has free, PostgreSQL does not tell.` }]
    : [];
}

const notTold = {
  severity: 'info',
  unknown: true,
  remedy: 'See that there is enough room, in the console of the provider or with df on its host.',
} as const;

const MB = 1024 * 1024;

/** A bulk load fills max_wal_size over and over, and each time a checkpoint writes everything out. */
export async function targetTuning({ target, databases }: ClusterContext): Promise<Seen[]> {
  const bytes = total(databases);
  if (bytes < LIMITS.diskWorthMentioningBytes) return [];
  const now = await target.one<{ walMb: number; checkpointSeconds: number; memory: string }>(
    `SELECT (SELECT setting::float8 FROM pg_settings WHERE name = 'max_wal_size') AS "walMb",
            (SELECT setting::float8 FROM pg_settings WHERE name = 'checkpoint_timeout') AS "checkpointSeconds",
            (SELECT current_setting('maintenance_work_mem')) AS memory`,
  );
  const wantedMb = Math.min(16_384, Math.max(4_096, Math.ceil(bytes / MB / 10)));
  if (now.walMb >= wantedMb && now.checkpointSeconds >= 900) return [];
  const walMb = Math.max(now.walMb, wantedMb);
  return [
    {
      message: `For ${size(bytes)}, the target is tuned low: "max_wal_size" is ${size(now.walMb * MB)}, "checkpoint_timeout" ${duration(now.checkpointSeconds)}, "maintenance_work_mem" ${now.memory} (index builds take ${LIMITS.indexMemory} whatever it says).`,
      remedy: `ALTER SYSTEM SET max_wal_size = '${walMb}MB'; ALTER SYSTEM SET checkpoint_timeout = '${Math.max(now.checkpointSeconds, 1800)}s'; SELECT pg_reload_conf(); -- until the migration is done`,
    },
  ];
}
