import pg from 'pg';
import type { FailureType } from '../domain/failure.ts';
import { MigrationError } from '../domain/failure.ts';
import { LIMITS } from '../domain/limits.ts';
import type { ConnInfo } from './conninfo.ts';
import type { Host } from './hosts.ts';
import { hostsOf, onlyHost } from './hosts.ts';
import type { PassfileKey } from './passfile.ts';
import { passwordFromFile } from './passfile.ts';
import { pinSettings } from './session-settings.ts';
import { sqlstateOf, toMigrationError } from './sqlstate.ts';
import { encryptions, tlsOptions } from './tls.ts';

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
  /** The admin console of a PgBouncer: it takes its own commands only, as simple queries, and knows no settings. */
  console?: boolean;
  /** More settings for this session, after the pinned ones. */
  settings?: Readonly<Record<string, string>>;
  /** When aborted, the backend is terminated from another connection and the socket destroyed. */
  signal?: AbortSignal;
}

/** `pg`'s own wire connection: not in its types, stable since version 7. */
interface WireClient {
  connection: {
    stream: NodeJS.ReadWriteStream & { destroy(): void };
    on(event: 'parameterStatus', f: (m: { parameterName: string; parameterValue: string }) => void): void;
    on(event: 'authenticationSASL', f: (m: { mechanisms: string[] }) => void): void;
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

/** SQLSTATE of ALLOW_CONNECTIONS false: at a login it has no other cause, and passes as a restart does. */
const TAKES_NO_CONNECTIONS = '55000';

const refusalOf = (error: unknown): FailureType =>
  sqlstateOf(error) === TAKES_NO_CONNECTIONS ? 'ConnectionFailed' : 'ServerError';

/**
 * Opens a session with all settings pinned, on the first of the hosts that answers and is of the wanted kind. The
 * session's endpoint is that host, so that whatever belongs to the session (a client program under its snapshot, the end
 * of its backend) reaches the same server.
 * @throws MigrationError `ConnectionFailed`, `AuthenticationFailed`, `ServerBusy`: with host and database, no password.
 */
export async function connect(endpoint: Endpoint, options: SessionOptions): Promise<Session> {
  const { info, server } = endpoint;
  const wish = info['target_session_attrs'] ?? 'any';
  const failures: MigrationError[] = [];
  for (const attributes of wish === 'prefer-standby' ? ['standby', 'any'] : [wish])
    for (const host of hostsOf(info)) {
      const where = `connecting to database "${options.database ?? info['dbname'] ?? ''}" at ${host.host}:${host.port} as "${info['user'] ?? ''}"`;
      try {
        const session = await connectHost({ server, info: onlyHost(info, host) }, host, options);
        if (await isOfKind(session, attributes)) return session;
        await session.close();
        failures.push(otherKind(`While ${where} on the ${server}: the server is not ${attributes}.`));
      } catch (error) {
        const failure = toMigrationError(error, { server, doing: where, otherwise: refusalOf(error) });
        failures.push(failure);
        // As libpq: who is refused by one server does not try the password on the next.
        if (failure.type === 'AuthenticationFailed') break;
      }
    }
  throw ofAll(failures);
}

const otherKind = (message: string): MigrationError => new MigrationError('ConnectionFailed', message);

/** The last host's failure, with what the others said before it. */
function ofAll(failures: readonly MigrationError[]): MigrationError {
  const last = failures.at(-1);
  const messages = new Set(failures.map(({ message }) => message));
  if (last === undefined) return otherKind('The connection string names no host.');
  return messages.size === 1 ? last : new MigrationError(last.type, [...messages].join(' '), last.details);
}

async function isOfKind(session: Session, attributes: string): Promise<boolean> {
  if (!['read-write', 'primary', 'read-only', 'standby'].includes(attributes)) return true;
  const { standby } = await session.one<{ standby: boolean }>('SELECT pg_is_in_recovery() AS standby');
  return standby === (attributes === 'read-only' || attributes === 'standby');
}

const INVALID_AUTHORIZATION = '28000';

/** With and without TLS, as sslmode says: the other way where the server knows only one, or pg_hba.conf allows only one. */
async function connectHost(endpoint: Endpoint, host: Host, options: SessionOptions): Promise<Session> {
  const [first, second] = encryptions(endpoint.info, host.host);
  const tls = () => tlsOptions(endpoint.info, host.host);
  try {
    return await open(endpoint, host, options, first === 'tls' ? tls() : false);
  } catch (error) {
    const unsupported = error instanceof Error && error.message.includes('does not support SSL');
    if (second === undefined || !(unsupported || sqlstateOf(error) === INVALID_AUTHORIZATION)) throw error;
    return open(endpoint, host, options, second === 'tls' ? tls() : false).catch((again: unknown) => {
      // What the preferred way said is what has to be mended.
      throw unsupported || again instanceof MigrationError ? again : error;
    });
  }
}

async function open(
  endpoint: Endpoint,
  { host, address, port }: Host,
  options: SessionOptions,
  ssl: NonNullable<pg.ClientConfig['ssl']>,
): Promise<Session> {
  const { info } = endpoint;
  const { database = info['dbname'] ?? 'postgres' } = options;
  const key = { host, port: String(port), database, user: info['user'] ?? '' };
  const password = info['password'] ?? passwordFromFile(info, key);
  const client = new pg.Client({
    host: address ?? host,
    port,
    ...(info['user'] === undefined ? {} : { user: info['user'] }),
    // A function, because `pg` itself would take the environment's for one that is not there.
    password: () => password ?? noPassword(key),
    database,
    ...(info['options'] === undefined ? {} : { options: info['options'] }),
    application_name: options.applicationName,
    connectionTimeoutMillis: connectTimeoutMs(info),
    keepAlive: true,
    // Else a server that vanished is noticed only after the system's two hours.
    keepAliveInitialDelayMillis: 30_000,
    ssl,
    ...(ssl !== false && info['sslnegotiation'] === 'direct' ? { sslnegotiation: 'direct' as const } : {}),
    enableChannelBinding: ssl !== false && info['channel_binding'] !== 'disable',
    ...(options.replication === true ? { replication: 'database' } : {}),
  });
  const wire = client as unknown as WireClient;
  let version = 0;
  wire.connection.on('parameterStatus', (message) => {
    if (message.parameterName === 'server_version') version = versionNumber(message.parameterValue);
  });
  let offersBinding = false;
  wire.connection.on('authenticationSASL', ({ mechanisms }) => {
    offersBinding = ssl !== false && mechanisms.includes('SCRAM-SHA-256-PLUS');
  });
  client.on('error', () => undefined);
  try {
    await client.connect();
  } catch (error) {
    wire.connection.stream.destroy();
    throw error;
  }
  const session = new Session(endpoint, client, version);
  try {
    if (info['channel_binding'] === 'require' && !offersBinding)
      throw new MigrationError(
        'AuthenticationFailed',
        `The server at ${host}:${port} offers no channel binding, which channel_binding=require asks for.`,
      );
    if (options.console !== true) await session.query(pinSettings(version, options.settings ?? {}));
  } catch (error) {
    session.destroy();
    throw error;
  }
  if (options.signal !== undefined) endWithSignal(session, options.signal, options.console !== true);
  return session;
}

function noPassword({ host, port, user }: PassfileKey): never {
  throw new MigrationError(
    'AuthenticationFailed',
    `The server at ${host}:${port} asks for a password for "${user}", and there is none in the connection string, ` +
      'PGPASSWORD or the passfile.',
  );
}

/** libpq waits without end for 0 or less; a step that waits so would hide a dead server. */
function connectTimeoutMs(info: ConnInfo): number {
  const seconds = Number(info['connect_timeout'] ?? '');
  return seconds > 0 ? seconds * 1000 : LIMITS.connectMs;
}

/** "17.5 (Debian …)" → 170005; "9.6.24" → 90624 */
export function versionNumber(text: string): number {
  const [major = 0, minor = 0, patch = 0] = (/^[\d.]+/.exec(text)?.[0] ?? '').split('.').map(Number);
  return major >= 10 ? major * 10_000 + minor : major * 10_000 + minor * 100 + patch;
}

/** `pg` takes no AbortSignal: end the backend from a second connection, so that it does not finish what it is at. */
function endWithSignal(session: Session, signal: AbortSignal, isBackend: boolean): void {
  const end = () => {
    if (session.closed) return;
    session.destroy();
    if (isBackend) void terminateBackend(session.endpoint, session.pid).catch(() => undefined);
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
