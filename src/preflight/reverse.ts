import { MigrationError } from '../domain/failure.ts';
import { LIMITS } from '../domain/limits.ts';
import { formatConnInfo, parseConnInfo } from '../postgres/conninfo.ts';
import { hostsOf } from '../postgres/hosts.ts';
import { quoteIdent } from '../postgres/identifier.ts';
import { subscriptionConnInfo } from '../postgres/subscription-conninfo.ts';
import type { DatabaseContext, Seen } from './check.ts';
import { trySubscription, withoutSecrets } from './reach.ts';

/** What the way back needs where the plan has it: told now, and not behind the fence, where it would cost downtime. */
export async function reverse(context: DatabaseContext): Promise<Seen[]> {
  const { target, targetForSource } = context;
  if (targetForSource === null) return [];
  const { level, slots, used, ends, sees } = await target.one<{
    level: string;
    slots: number;
    used: number;
    ends: boolean;
    sees: boolean;
  }>(
    `SELECT current_setting('wal_level') AS level, current_setting('max_replication_slots')::float8 AS slots,
            (SELECT count(*) FROM pg_replication_slots)::float8 AS used,
            pg_has_role('pg_signal_backend', 'USAGE') AS ends, pg_has_role('pg_read_all_stats', 'USAGE') AS sees`,
  );
  const seen: Seen[] = [];
  if (level !== 'logical')
    seen.push({
      message: `The source is to follow the target after the cutover, and wal_level of the target is ${level}.`,
      remedy: `ALTER SYSTEM SET wal_level = 'logical'; -- on the target, then restart it`,
    });
  if (used >= slots)
    seen.push({
      message: `The source is to follow the target after the cutover, and the target has no free slot: ${used} of ${slots} are used.`,
      remedy: `ALTER SYSTEM SET max_replication_slots = ${slots + 10}; -- on the target, then restart it`,
    });
  if (!ends || !sees)
    seen.push({
      message: 'A rollback would end the sessions of writers on the target, which our role there may not.',
      remedy: 'GRANT pg_read_all_stats, pg_signal_backend TO current_user; -- on the target',
    });
  // Without a logical WAL it would only say the same.
  return seen.length > 0 ? seen : trial(context, targetForSource);
}

/** A subscription on the source that is rolled back. The target's database may not be there yet: any one will do. */
async function trial(
  { source, target, database }: DatabaseContext,
  { info, reader }: NonNullable<DatabaseContext['targetForSource']>,
): Promise<Seen[]> {
  try {
    const { name } = await target.one<{ name: string }>('SELECT current_database() AS name');
    const conninfo = parseConnInfo(subscriptionConnInfo(info, name, reader), 'the plan');
    const bounded = { ...conninfo, connect_timeout: String(LIMITS.targetConnectSeconds) };
    const seconds = LIMITS.targetConnectSeconds * hostsOf(bounded).length;
    const outcome = await trySubscription(source, formatConnInfo(bounded), seconds);
    if (outcome === 'reached') return [];
    const why =
      outcome === 'forbidden'
        ? 'our role may not create a subscription on the source'
        : `a trial that was rolled back says: ${withoutSecrets(outcome.refusal, bounded)}`;
    return [
      {
        object: quoteIdent(database),
        message: `The source is to follow the target after the cutover, and cannot: ${why}`,
        remedy:
          'Let the source server into the target, say in "reverse.targetForSource" how it gets there, give our role on the source pg_create_subscription and CREATE on the database (before 16: superuser), or set "reverse" to false.',
      },
    ];
  } catch (error) {
    if (!(error instanceof MigrationError)) throw error;
    return [{ object: quoteIdent(database), message: error.message, remedy: error.details.next }];
  }
}
