import { generationName } from '../contract.ts';
import type { Session } from '../postgres/connection.ts';
import { quoteIdent, quoteLiteral } from '../postgres/identifier.ts';
import { redact } from '../postgres/sqlstate.ts';
import type { ClusterContext, DatabaseContext, Seen } from './check.ts';
import { duration } from './units.ts';

const setting = async (session: Session, name: string): Promise<string | null> =>
  (await session.one<{ value: string | null }>('SELECT current_setting($1, true) AS value', [name])).value;

const number = async (session: Session, name: string): Promise<number> => Number(await setting(session, name));

/** Managed servers have a name of their own for it; the setting that only they know tells who they are. */
const WAL_LEVEL_REMEDIES = [
  ['rds.logical_replication', 'Set "rds.logical_replication" to 1 in the parameter group, and reboot.'],
  ['cloudsql.logical_decoding', 'Set the flag "cloudsql.logical_decoding" to on; the instance restarts.'],
  ['alloydb.logical_decoding', 'Set the flag "alloydb.logical_decoding" to on; the instance restarts.'],
  ['azure.extensions', 'Set the server parameter "wal_level" to LOGICAL, and restart.'],
] as const;

/** Below this, a sender that waits for the target to apply a big transaction is taken for dead. */
const SHORT_SENDER_TIMEOUT_MS = 10_000;

export async function walSenderTimeout({ source }: ClusterContext): Promise<Seen[]> {
  const { ms } = await source.one<{ ms: number | null }>(
    `SELECT (SELECT reset_val::float8 FROM pg_settings WHERE name = 'wal_sender_timeout') AS ms`,
  );
  if (ms === null || ms >= SHORT_SENDER_TIMEOUT_MS) return [];
  return [
    ms === 0
      ? {
          message: `"wal_sender_timeout" is 0: when the target vanishes, its sender stays, and nobody else can use the slot.`,
          remedy: `ALTER SYSTEM SET wal_sender_timeout = '1min'; SELECT pg_reload_conf();`,
        }
      : {
          message: `"wal_sender_timeout" is ${ms} ms: while the target is busy with a big transaction, its sender is ended, and sends it again.`,
          remedy: `ALTER SYSTEM SET wal_sender_timeout = '1min'; SELECT pg_reload_conf();`,
        },
  ];
}

export async function walLevel({ source }: ClusterContext): Promise<Seen[]> {
  const level = await setting(source, 'wal_level');
  if (level === 'logical') return [];
  let remedy = `ALTER SYSTEM SET wal_level = 'logical'; -- then restart the source.`;
  for (const [name, text] of WAL_LEVEL_REMEDIES) if ((await setting(source, name)) !== null) remedy = text;
  return [{ message: `"wal_level" is ${level ?? 'not known'}, but replication needs logical.`, remedy }];
}

/** One slot a database stays until its cutover. A slot of our own that is there already needs no other. */
export async function freeSlots({ source, databases, own }: ClusterContext): Promise<Seen[]> {
  const most = await number(source, 'max_replication_slots');
  const { used, ours } = await source.one<{ used: number; ours: number }>(
    `SELECT count(*)::float8 AS used, count(*) FILTER (WHERE slot_name = $1)::float8 AS ours FROM pg_replication_slots`,
    [own === null ? '' : generationName(own, 0)],
  );
  return tooFew('replication slots', 'max_replication_slots', most - used, databases.length - ours, most);
}

/** The holder of a snapshot is a walsender, and after it the subscription. */
export async function freeWalSenders({ source, databases, own }: ClusterContext): Promise<Seen[]> {
  const most = await number(source, 'max_wal_senders');
  const { used, ours } = await source.one<{ used: number; ours: number }>(
    `SELECT count(*)::float8 AS used, count(*) FILTER (WHERE application_name LIKE $1)::float8 AS ours
       FROM pg_stat_activity WHERE backend_type = 'walsender'`,
    [own === null ? '' : `pgtransit\\_${own}\\_%`],
  );
  return tooFew('WAL senders', 'max_wal_senders', most - used, databases.length - ours, most);
}

export function tooFew(what: string, name: string, free: number, needed: number, most: number): Seen[] {
  if (free >= needed) return [];
  const message = `${Math.max(free, 0)} of ${most} ${what} are free, but ${needed} ${needed === 1 ? 'is' : 'are'} needed, one for each database.`;
  return [{ message, remedy: `ALTER SYSTEM SET ${name} = ${most - free + needed}; -- then restart the server.` }];
}

/** Slot creation waits for every transaction of the cluster that wrote something, and a prepared one has no end. */
export async function preparedTransactions({ source, replication }: ClusterContext): Promise<Seen[]> {
  const rows = await source.query<{ gid: string; owner: string; database: string; since: string }>(
    `SELECT gid, owner, database, prepared::text AS since FROM pg_prepared_xacts ORDER BY prepared`,
  );
  return rows.map(({ gid, owner, database, since }) => ({
    object: quoteLiteral(gid),
    message: `Transaction ${quoteLiteral(gid)} of ${quoteIdent(owner)} in database ${quoteIdent(database)} is prepared since ${since} and neither committed nor rolled back${
      replication ? '; a slot cannot be made before that' : '; its changes are not copied'
    }.`,
    remedy: `COMMIT PREPARED ${quoteLiteral(gid)}; -- or ROLLBACK PREPARED, in its database`,
    severity: replication ? 'error' : 'warning',
  }));
}

/** A transaction as old as this may well still be there when the slot is made. */
const LONG_TRANSACTION = '10 seconds';

export async function longTransactions({ source }: ClusterContext): Promise<Seen[]> {
  const { me, all } = await source.one<{ me: string; all: boolean }>(
    `SELECT current_user AS me,
            pg_has_role('pg_read_all_stats', 'USAGE') OR current_setting('is_superuser')::bool AS all`,
  );
  const rows = await source.query<{ pid: number; user: string; database: string; seconds: number; query: string }>(
    `SELECT pid, usename AS user, datname AS database, left(query, 80) AS query,
            extract(epoch FROM clock_timestamp() - xact_start)::float8 AS seconds
       FROM pg_stat_activity
      WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid() AND xact_start < clock_timestamp() - interval '${LONG_TRANSACTION}'
      ORDER BY xact_start`,
  );
  const seen: Seen[] = rows.map(({ pid, user, database, seconds, query }) => ({
    object: `pid ${pid}`,
    message: `A transaction of ${quoteIdent(user)} in database ${quoteIdent(database)} (pid ${pid}) has been open for ${duration(seconds)}; the slot is made only when it ends. Its latest statement: ${redact(query)}`,
    remedy: `SELECT pg_terminate_backend(${pid});`,
  }));
  if (!all)
    seen.push({
      unknown: true,
      message:
        "Long transactions of other roles cannot be seen without the role's membership in pg_read_all_stats; slot creation waits for them.",
      remedy: `GRANT pg_read_all_stats TO ${quoteIdent(me)};`,
    });
  return seen;
}

/** The server refuses new transactions at about 2.1 billion. */
const XID_AGE_WARNING = 1_500_000_000;
const XID_AGE_ERROR = 2_000_000_000;

export async function wraparound({ source }: DatabaseContext): Promise<Seen[]> {
  const { age } = await source.one<{ age: number }>(
    `SELECT age(datfrozenxid)::float8 AS age FROM pg_database WHERE datname = current_database()`,
  );
  if (age < XID_AGE_WARNING) return [];
  const message = `The oldest transaction id is ${age} transactions old, and the snapshot keeps vacuum from freezing rows while they are copied.`;
  const remedy = 'VACUUM (FREEZE); -- in the database';
  return [{ message, remedy, severity: age < XID_AGE_ERROR ? 'warning' : 'error' }];
}

/** pg_dump locks every table in one transaction. */
export async function lockTable({ source }: DatabaseContext): Promise<Seen[]> {
  const { room, tables } = await source.one<{ room: number; tables: number }>(
    `SELECT current_setting('max_locks_per_transaction')::float8
              * (current_setting('max_connections')::float8 + current_setting('max_prepared_transactions')::float8) AS room,
            (SELECT count(*)::float8 FROM pg_class WHERE relkind IN ('r', 'p') AND relpersistence <> 't') AS tables`,
  );
  if (tables < room * 0.8) return [];
  const message = `The database has ${tables} tables, and reading the schema locks each of them, but the server has room for ${room} locks in all.`;
  return [{ message, remedy: 'Raise "max_locks_per_transaction" on the source, and restart it.' }];
}
