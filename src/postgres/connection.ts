import { readFileSync } from 'node:fs';
import pg from 'pg';
import type { ConnInfo } from './conninfo.ts';
import { toMigrationError } from './sqlstate.ts';

/** One server as this worker reaches it. The password is in `info` and goes nowhere but into a connection. */
export interface Endpoint {
  server: 'source' | 'target';
  info: ConnInfo;
}

export interface SessionOptions {
  /** Default: the database of the endpoint. */
  database?: string;
  /** What pg_stat_activity shows; `applicationName()` of contract.ts makes it. */
  applicationName: string;
  /** A walsender connection; it takes simple queries only. */
  replication?: boolean;
  /** More settings for this session, after the pinned ones. */
  settings?: Readonly<Record<string, string>>;
  /** When aborted, the backend is terminated from another connection and the socket destroyed. */
  signal?: AbortSignal;
}

/**
 * Database and role settings reach every session, so what matters is set by each session itself. `row_security = off`
 * makes a policy that hides rows an error; libpq-style dates and floats make text comparable between two servers.
 */
const PINNED: Readonly<Record<string, string>> = {
  statement_timeout: '0',
  lock_timeout: '0',
  idle_in_transaction_session_timeout: '0',
  default_transaction_read_only: 'off',
  default_transaction_isolation: 'read committed',
  default_transaction_deferrable: 'off',
  search_path: '',
  standard_conforming_strings: 'on',
  DateStyle: 'ISO, MDY',
  IntervalStyle: 'postgres',
  TimeZone: 'UTC',
  extra_float_digits: '3',
  bytea_output: 'hex',
  xmloption: 'content',
  row_security: 'off',
  synchronize_seqscans: 'off',
  session_replication_role: 'origin',
  tcp_keepalives_idle: '30',
  tcp_keepalives_interval: '10',
  tcp_keepalives_count: '3',
};

/** Settings that came later, with the first version (server_version_num) that knows them. */
const PINNED_SINCE: readonly (readonly [number, string, string])[] = [
  [120000, 'tcp_user_timeout', '60s'],
  [140000, 'idle_session_timeout', '0'],
  // How soon a backend in a long command notices that its client is gone; the lock of a dead lane lives that long.
  [140000, 'client_connection_check_interval', '2s'],
  [170000, 'transaction_timeout', '0'],
];

/** Only a superuser may set it; without it, a trigger on a DDL or role change of ours is the same for everybody. */
const SUPERUSER_ONLY = new Set(['session_replication_role']);

/** `pg`'s own wire connection: not in its types, stable since version 7. */
interface WireClient {
  connection: {
    stream: NodeJS.ReadWriteStream & { destroy(): void };
    on(event: 'parameterStatus', f: (m: { parameterName: string; parameterValue: string }) => void): void;
  };
  processID: number;
}

export class Session {
  readonly endpoint: Endpoint;
  readonly client: pg.Client;
  /** Backend pid on the server. */
  readonly pid: number;
  /** `server_version_num` */
  readonly version: number;
  #closed = false;

  constructor(endpoint: Endpoint, client: pg.Client, version: number) {
    this.endpoint = endpoint;
    this.client = client;
    this.pid = (client as unknown as WireClient).processID;
    this.version = version;
    // An idle connection that the server ends would otherwise end the process; the next query reports it.
    client.on('error', () => undefined);
  }

  /** Rows as objects. bigint and numeric arrive as text: cast counts to float8 in the SQL. */
  async query<Row = Record<string, unknown>>(sql: string, parameters?: readonly unknown[]): Promise<Row[]> {
    const result = await this.client.query(sql, parameters === undefined ? undefined : [...parameters]);
    // Several statements in one string give an array of results; the last one is the answer.
    const last = Array.isArray(result) ? (result as pg.QueryResult[]).at(-1) : result;
    return (last?.rows ?? []) as Row[];
  }

  /** The one row of a query that has one. */
  async one<Row = Record<string, unknown>>(sql: string, parameters?: readonly unknown[]): Promise<Row> {
    const rows = await this.query<Row>(sql, parameters);
    const row = rows[0];
    if (row === undefined || rows.length > 1) throw new Error(`expected one row, got ${rows.length}`);
    return row;
  }

  /** Commits what `work` did, or rolls it back and throws. */
  async transaction<T>(work: () => Promise<T>, begin = 'BEGIN'): Promise<T> {
    await this.query(begin);
    try {
      const result = await work();
      await this.query('COMMIT');
      return result;
    } catch (error) {
      await this.query('ROLLBACK').catch(() => this.destroy());
      throw error;
    }
  }

  get stream(): WireClient['connection']['stream'] {
    return (this.client as unknown as WireClient).connection.stream;
  }

  get closed(): boolean {
    return this.#closed;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.client.end().catch(() => undefined);
  }

  /** Cuts the connection without a word: an open transaction rolls back, and nothing waits for it. */
  destroy(): void {
    this.#closed = true;
    this.stream.destroy();
  }
}

/**
 * Opens a session with all settings pinned.
 * @throws MigrationError `ConnectionFailed`, `AuthenticationFailed`, `ServerBusy`: with host and database, no password.
 */
export async function connect(endpoint: Endpoint, options: SessionOptions): Promise<Session> {
  const { info, server } = endpoint;
  const hosts = (info['host'] ?? 'localhost').split(',');
  const ports = (info['port'] ?? '5432').split(',');
  let lastError: unknown;
  for (const [index, host] of hosts.entries()) {
    const port = Number(ports[index] ?? ports[0] ?? '5432') || 5432;
    try {
      const session = await connectHost(endpoint, host, port, options);
      if (await wanted(session, info['target_session_attrs'] ?? 'any')) return session;
      await session.close();
      lastError = new Error(`the server is not ${info['target_session_attrs'] ?? ''}`);
    } catch (error) {
      const where = `connecting to database "${options.database ?? info['dbname'] ?? ''}" at ${host}:${port} as "${info['user'] ?? ''}"`;
      lastError = toMigrationError(error, { server, doing: where });
    }
  }
  throw toMigrationError(lastError, { server, doing: 'connecting' });
}

async function wanted(session: Session, attributes: string): Promise<boolean> {
  if (!['read-write', 'primary', 'read-only', 'standby'].includes(attributes)) return true;
  const { standby } = await session.one<{ standby: boolean }>('SELECT pg_is_in_recovery() AS standby');
  return standby === (attributes === 'read-only' || attributes === 'standby');
}

async function connectHost(endpoint: Endpoint, host: string, port: number, options: SessionOptions): Promise<Session> {
  const mode = endpoint.info['sslmode'] ?? process.env['PGSSLMODE'] ?? 'prefer';
  const isSocket = host.startsWith('/');
  if (mode === 'disable' || mode === 'allow' || isSocket) return open(endpoint, host, port, options, false);
  const tls = tlsOptions(endpoint.info, mode);
  try {
    return await open(endpoint, host, port, options, tls);
  } catch (error) {
    const refused = error instanceof Error && error.message.includes('does not support SSL');
    if (mode !== 'prefer' || !refused) throw error;
    return open(endpoint, host, port, options, false);
  }
}

/** libpq's meaning of sslmode (manual, 34.19.1): only verify-* look at the certificate. */
function tlsOptions(info: ConnInfo, mode: string): Exclude<pg.ClientConfig['ssl'], undefined | boolean> {
  const file = (key: string) => (info[key] === undefined ? undefined : readFileSync(info[key]));
  const [ca, cert, key] = [
    info['sslrootcert'] === 'system' ? undefined : file('sslrootcert'),
    file('sslcert'),
    file('sslkey'),
  ];
  const given = { ...(ca && { ca }), ...(cert && { cert }), ...(key && { key }) };
  if (mode === 'verify-full') return { ...given, rejectUnauthorized: true };
  if (mode === 'verify-ca' || (mode === 'require' && ca !== undefined))
    return { ...given, rejectUnauthorized: true, checkServerIdentity: () => undefined };
  return { ...given, rejectUnauthorized: false };
}

async function open(
  endpoint: Endpoint,
  host: string,
  port: number,
  options: SessionOptions,
  ssl: NonNullable<pg.ClientConfig['ssl']>,
): Promise<Session> {
  const { info } = endpoint;
  const seconds = Number(info['connect_timeout'] ?? '10') || 10;
  const client = new pg.Client({
    host,
    port,
    ...(info['user'] === undefined ? {} : { user: info['user'] }),
    ...(info['password'] === undefined ? {} : { password: info['password'] }),
    database: options.database ?? info['dbname'] ?? 'postgres',
    ...(info['options'] === undefined ? {} : { options: info['options'] }),
    application_name: options.applicationName,
    connectionTimeoutMillis: seconds * 1000,
    keepAlive: true,
    // Else a server that vanished is noticed only after the system's two hours.
    keepAliveInitialDelayMillis: 30_000,
    ssl,
    ...(options.replication === true ? { replication: 'database' } : {}),
  });
  let version = 0;
  (client as unknown as WireClient).connection.on('parameterStatus', (message) => {
    if (message.parameterName === 'server_version') version = versionNumber(message.parameterValue);
  });
  client.on('error', () => undefined);
  await client.connect();
  const session = new Session(endpoint, client, version);
  try {
    await session.query(pinSettings(version, options.settings ?? {}));
  } catch (error) {
    session.destroy();
    throw error;
  }
  if (options.signal !== undefined) endWithSignal(session, options.signal);
  return session;
}

/** "17.5 (Debian …)" → 170005; "9.6.24" → 90624 */
export function versionNumber(text: string): number {
  const [major = 0, minor = 0, patch = 0] = (/^[\d.]+/.exec(text)?.[0] ?? '').split('.').map(Number);
  return major >= 10 ? major * 10_000 + minor : major * 10_000 + minor * 100 + patch;
}

/** The same settings as one string of SET commands, e.g. for a program that is given PGOPTIONS. */
export function pinnedSettings(version: number): Record<string, string> {
  const later = PINNED_SINCE.filter(([since]) => version >= since).map(([, name, value]) => [name, value] as const);
  return { ...PINNED, ...Object.fromEntries(later) };
}

function pinSettings(version: number, more: Readonly<Record<string, string>>): string {
  const literal = (value: string) => `'${value.replaceAll("'", "''")}'`;
  return Object.entries({ ...pinnedSettings(version), ...more })
    .map(([name, value]) =>
      SUPERUSER_ONLY.has(name)
        ? // One statement, so that a walsender takes it too, and no error for those who may not.
          `SELECT CASE WHEN current_setting('is_superuser')::bool THEN pg_catalog.set_config(${literal(name)}, ${literal(value)}, false) END`
        : `SET ${name} = ${literal(value)}`,
    )
    .join('; ');
}

/** `pg` takes no AbortSignal: end the backend from a second connection, so that it does not finish what it is at. */
function endWithSignal(session: Session, signal: AbortSignal): void {
  const end = () => {
    if (session.closed) return;
    session.destroy();
    void terminateBackend(session.endpoint, session.pid).catch(() => undefined);
  };
  if (signal.aborted) end();
  else signal.addEventListener('abort', end, { once: true });
  session.client.once('end', () => signal.removeEventListener('abort', end));
}

async function terminateBackend(endpoint: Endpoint, pid: number): Promise<void> {
  const session = await connect(endpoint, { applicationName: 'pgtransit_control' });
  try {
    await session.query('SELECT pg_terminate_backend($1)', [pid]);
  } finally {
    await session.close();
  }
}
