import type { ClusterContext, Seen } from './check.ts';
import { expectedWal } from './disk.ts';
import { duration, size } from './units.ts';

/** What may invalidate a slot while it stands still, as it does until the copy is done: an error where it will. */
export async function slotLimits(context: ClusterContext): Promise<Seen[]> {
  const { source } = context;
  const limits = await source.one<{ keep: number | null; idle: number | null; neon: boolean }>(
    `SELECT (SELECT setting::float8 * 1024 * 1024 FROM pg_settings WHERE name = 'max_slot_wal_keep_size' AND setting <> '-1') AS keep,
            (SELECT extract(epoch FROM current_setting(name)::interval)::float8
               FROM pg_settings WHERE name = 'idle_replication_slot_timeout' AND setting <> '0') AS idle,
            current_setting('neon.timeline_id', true) IS NOT NULL AS neon`,
  );
  const expected = await expectedWal(context);
  const seen: Seen[] = [];
  if (limits.keep !== null) {
    const tooLittle = expected !== null && expected.bytes > limits.keep;
    const estimate = tooLittle
      ? `, and in the ${duration(expected.seconds)} that the copy may take, the source writes about ${size(expected.bytes)}`
      : '';
    seen.push({
      object: 'max_slot_wal_keep_size',
      message: `"max_slot_wal_keep_size" is ${size(limits.keep)}: a slot that falls further behind than that is lost, and the slot stands still while rows are copied${estimate}.`,
      remedy: `ALTER SYSTEM SET max_slot_wal_keep_size = -1; SELECT pg_reload_conf();`,
      severity: tooLittle ? 'error' : 'warning',
    });
  }
  if (limits.idle !== null) {
    const tooShort = expected !== null && expected.seconds > limits.idle;
    seen.push({
      object: 'idle_replication_slot_timeout',
      message: `"idle_replication_slot_timeout" is ${duration(limits.idle)}: the slot, which nobody reads while rows are copied, is lost after that${
        tooShort ? `, and the copy may take ${duration(expected.seconds)}` : ''
      }.`,
      remedy: `ALTER SYSTEM SET idle_replication_slot_timeout = 0; SELECT pg_reload_conf();`,
      severity: tooShort ? 'error' : 'warning',
    });
  }
  if (limits.neon)
    seen.push({
      object: 'neon',
      message:
        'The source is of Neon, which drops a slot that nobody has read for some time, and nobody reads it while rows are copied.',
      remedy: 'See in its documentation how long that is, and whether the copy takes less.',
    });
  return seen;
}
