import type { Session } from '../postgres/connection.ts';
import { connect } from '../postgres/connection.ts';
import { findProgram } from '../postgres/programs.ts';
import { MigrationError } from '../domain/failure.ts';
import type { ClusterContext, Seen } from './check.ts';

/** The source's own session, seen from the target: host names and addresses prove nothing. */
export async function sameServer({ source, target }: ClusterContext): Promise<Seen[]> {
  const { name } = await source.one<{ name: string }>(`SELECT current_setting('application_name') AS name`);
  const rows = await target.query('SELECT FROM pg_stat_activity WHERE pid = $1 AND application_name = $2', [
    source.pid,
    name,
  ]);
  if (rows.length === 0) return [];
  return [
    {
      message: 'Source and target are the same server.',
      remedy: 'Let the plan\'s "source" and "target" lead to two servers.',
    },
  ];
}

const SYSTEM_IDENTIFIER = 'SELECT system_identifier::text AS id FROM pg_control_system()';

/** A promoted standby or a restored base backup keeps the identifier of the server that it was taken from. */
export async function sameSystemIdentifier(context: ClusterContext): Promise<Seen[]> {
  const source = await context.source.one<{ id: string }>(SYSTEM_IDENTIFIER);
  const target = await context.target.one<{ id: string }>(SYSTEM_IDENTIFIER);
  if (source.id !== target.id || (await sameServer(context)).length > 0) return [];
  return [
    {
      message: `Both servers have the system identifier ${source.id}, so one is a physical copy of the other, and a wrong address cannot be told from the right one.`,
    },
  ];
}

export const sourcePooler = ({ source }: ClusterContext): Promise<Seen[]> => pooler(source);
export const targetPooler = ({ target }: ClusterContext): Promise<Seen[]> => pooler(target);

const POOLER_SAMPLES = 4;

/** A pooler hands out its own process id at login, and, per transaction, whichever backend is free. */
export async function pooler(session: Session): Promise<Seen[]> {
  const pids = new Set<number>([session.pid]);
  for (let i = 0; i < POOLER_SAMPLES; i++)
    pids.add((await session.one<{ pid: number }>('SELECT pg_backend_pid() AS pid')).pid);
  if (pids.size === 1) return [];
  return [
    {
      message: `One connection was answered by ${pids.size} different process ids, so a connection pooler is in between; snapshots, locks and settings do not hold through it.`,
      remedy: 'Use the address of the server itself.',
    },
  ];
}

export const sourceServers = ({ source }: ClusterContext): Promise<Seen[]> => severalServers(source);
export const targetServers = ({ target }: ClusterContext): Promise<Seen[]> => severalServers(target);

const CONNECTIONS_COMPARED = 3;

/** A load balancer, or a DNS name with several addresses, leads each connection to whichever server it likes. */
async function severalServers(session: Session): Promise<Seen[]> {
  const servers = new Set<string>();
  const addresses = new Set<string>();
  const look = async (one: Session) => {
    const row = await one.one<{ server: string; address: string | null }>(
      `SELECT (SELECT system_identifier::text FROM pg_control_system()) || ' ' || pg_postmaster_start_time() AS server,
              host(inet_server_addr()) || ':' || inet_server_port() AS address`,
    );
    servers.add(row.server);
    addresses.add(row.address ?? 'a socket');
  };
  await look(session);
  const { name } = await session.one<{ name: string }>(`SELECT current_setting('application_name') AS name`);
  for (let i = 1; i < CONNECTIONS_COMPARED; i++) {
    const another = await connect(session.endpoint, { applicationName: name });
    try {
      await look(another);
    } finally {
      await another.close();
    }
  }
  if (servers.size === 1) return [];
  return [
    {
      message: `${CONNECTIONS_COMPARED} connections to one address reached ${servers.size} different servers (${[...addresses].join(', ')}).`,
      remedy: 'Use the address of the one server that is meant, not that of a load balancer.',
    },
  ];
}

/** A query on a standby is ended when it needs rows that the primary has vacuumed away, and with it the snapshot. */
export async function standbyConflicts({ source }: ClusterContext): Promise<Seen[]> {
  if (!(await inRecovery(source))) return [];
  const { delay, feedback } = await source.one<{ delay: string; feedback: boolean }>(
    `SELECT current_setting('max_standby_streaming_delay') AS delay, current_setting('hot_standby_feedback')::bool AS feedback`,
  );
  if (delay === '-1' || feedback) return [];
  return [
    {
      message: `The source is a standby that ends queries which hold up its recovery for ${delay}, and so the snapshot of the copy.`,
      remedy: 'ALTER SYSTEM SET max_standby_streaming_delay = -1; SELECT pg_reload_conf(); -- until the copy is done',
    },
  ];
}

export async function sourceInRecovery({ source }: ClusterContext): Promise<Seen[]> {
  if (!(await inRecovery(source))) return [];
  return [
    {
      message: 'The source is a standby: a publication and its slot can only be made on the primary.',
      remedy: 'Use the address of the primary, or set "method" to "dump".',
    },
  ];
}

export async function targetInRecovery({ target }: ClusterContext): Promise<Seen[]> {
  if (!(await inRecovery(target))) return [];
  return [{ message: 'The target is a standby and takes no writes.', remedy: 'Use the address of the primary.' }];
}

const inRecovery = async (session: Session): Promise<boolean> =>
  (await session.one<{ standby: boolean }>('SELECT pg_is_in_recovery() AS standby')).standby;

/** Our sessions set it off; a provider sets it when the disk is full, and then it comes back. */
export async function targetReadOnly({ target }: ClusterContext): Promise<Seen[]> {
  const { value } = await target.one<{ value: string }>(
    `SELECT reset_val AS value FROM pg_settings WHERE name = 'default_transaction_read_only'`,
  );
  const { server } = await target.one<{ server: boolean }>(
    `SELECT EXISTS (SELECT FROM pg_db_role_setting s, unnest(s.setconfig) AS setting
                     WHERE setting = 'default_transaction_read_only=on'
                       AND setdatabase = 0 AND setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = current_user))) AS server`,
  );
  if (value !== 'on' && !server) return [];
  return [
    {
      message: 'The target makes transactions read-only by default, as providers do when its disk is full.',
      remedy: 'Find out why "default_transaction_read_only" is on, and reset it.',
    },
  ];
}

const major = (version: number): number => Math.floor(version / 10_000);

/** Logical replication and its sequences' catalogs came with 10. */
const OLDEST_SOURCE = 100000;

export const sourceVersion = ({ source }: ClusterContext): Promise<Seen[]> => {
  if (source.version >= OLDEST_SOURCE) return Promise.resolve([]);
  // Until 9.6 the first two numbers were the major.
  const name = `${major(source.version)}.${Math.floor(source.version / 100) % 100}`;
  return Promise.resolve([{ message: `The source is PostgreSQL ${name}; 10 is the oldest that can be read.` }]);
};

/** Older ones are beyond their end of life, and nothing was tried with them. */
const OLDEST_TARGET = 140000;

export const targetTooOld = ({ target }: ClusterContext): Promise<Seen[]> => {
  if (target.version >= OLDEST_TARGET) return Promise.resolve([]);
  const message = `The target is PostgreSQL ${major(target.version)}; 14 is the oldest that can be migrated to.`;
  return Promise.resolve([{ message, remedy: 'Use a target with a version that is still supported.' }]);
};

export const targetVersion = ({ source, target, plan }: ClusterContext): Promise<Seen[]> => {
  if (major(target.version) >= major(source.version)) return Promise.resolve([]);
  const message = `The target is PostgreSQL ${major(target.version)}, older than the source with ${major(source.version)}; what the older one does not know cannot be restored.`;
  const remedy = 'Migrate to the same or a newer version, or set "allowOlderTarget" to true.';
  return Promise.resolve([{ message, ...(plan.allowOlderTarget ? { severity: 'warning' } : { remedy }) }]);
};

/** Below these, a slot may decode with an outdated list of published tables (release notes of May 2025). */
const FIXED_MINOR: Readonly<Record<number, number>> = { 13: 21, 14: 18, 15: 13, 16: 9, 17: 5 };

export const outdatedMinor = ({ source }: ClusterContext): Promise<Seen[]> => {
  const fixed = FIXED_MINOR[major(source.version)];
  if (fixed === undefined || source.version % 10_000 >= fixed) return Promise.resolve([]);
  const message = `The source is PostgreSQL ${major(source.version)}.${source.version % 10_000}, where changes made while a publication is altered can be lost; ${major(source.version)}.${fixed} mends that.`;
  return Promise.resolve([{ message, remedy: `Update the source to ${major(source.version)}.${fixed} or later.` }]);
};

export async function programs({ source, target }: ClusterContext): Promise<Seen[]> {
  const seen: Seen[] = [];
  for (const program of ['pg_dump', 'pg_restore'] as const) {
    try {
      await findProgram(program, { sourceVersion: source.version, targetVersion: target.version });
    } catch (error) {
      if (!(error instanceof MigrationError)) throw error;
      const remedy = `Install the client programs of PostgreSQL ${major(target.version)} on every worker, or name their directory in PGTRANSIT_PG_BIN.`;
      seen.push({ message: error.message, object: program, remedy });
    }
  }
  return seen;
}
