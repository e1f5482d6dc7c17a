import { MigrationError } from '../domain/failure.ts';
import type { Endpoint, Session } from './connection.ts';
import { connect } from './connection.ts';
import { quoteIdent } from './identifier.ts';

/** The admin console of a PgBouncer, which is a database of that name to its clients. */
export const openConsole = (endpoint: Endpoint, applicationName: string, signal: AbortSignal): Promise<Session> =>
  connect(endpoint, { database: 'pgbouncer', applicationName, console: true, signal });

interface Pooled {
  /** What clients connect to. */
  name: string;
  /** On the server, at `host` and `port` as PgBouncer reaches it. */
  database: string;
  host: string | null;
  port: number;
  paused: number;
}

const readPooled = (console: Session): Promise<Pooled[]> => console.query<Pooled>('SHOW DATABASES');

/**
 * The names under which clients reach the source's database through this PgBouncer. The same host may have another name
 * here than there, so host and port are only looked at where the database alone does not say which server is meant.
 * @throws MigrationError `FenceFailed` when there is none, or when it cannot be told
 */
export async function pooledNames(console: Session, database: string, source: Endpoint): Promise<string[]> {
  const all = (await readPooled(console)).filter(({ name }) => name !== 'pgbouncer');
  const named = all.filter((pooled) => pooled.database === database);
  const servers = new Set(named.map(({ host, port }) => `${host ?? ''}:${port}`));
  const { host, port } = source.info;
  const chosen =
    servers.size <= 1 ? named : named.filter((pooled) => pooled.host === host && String(pooled.port) === port);
  if (chosen.length > 0) return chosen.map(({ name }) => name);
  const seen = all.map(
    (pooled) => `${pooled.name} (${pooled.database} at ${pooled.host ?? 'a socket'}:${pooled.port})`,
  );
  throw new MigrationError(
    'FenceFailed',
    named.length === 0
      ? `PgBouncer has no database that is "${database}" on its server, only ${seen.join(', ')}.`
      : `PgBouncer has database "${database}" on several servers, and none of them is ${host ?? 'a socket'}:${port ?? ''}: ${seen.join(', ')}.`,
    {
      object: database,
      next: 'Name the source in PgBouncer as the plan does, RELOAD it, resolve with retry, then send stopReplication again.',
    },
  );
}

/**
 * Waits until no transaction of a client is under way, then holds all that clients send. In session pooling it waits
 * until the clients have gone, so whoever asks must have an end of its own.
 */
export async function pause(console: Session, names: readonly string[]): Promise<void> {
  for (const { name, paused } of await readPooled(console))
    if (names.includes(name) && paused === 0) await console.query(`PAUSE ${quoteIdent(name)}`);
}

/** Sends on what was held; nothing where nothing is paused, or the name is no longer there. */
export async function resume(console: Session, names: readonly string[]): Promise<void> {
  for (const { name, paused } of await readPooled(console))
    if (names.includes(name) && paused !== 0) await console.query(`RESUME ${quoteIdent(name)}`);
}

/** Where PgBouncer sends clients of these names, e.g. "shop → shop at 10.0.0.1:5432". */
export async function routes(console: Session, names: readonly string[]): Promise<string[]> {
  const pooled = (await readPooled(console)).filter(({ name }) => names.includes(name));
  return pooled.map(({ name, database, host, port }) => `${name} → ${database} at ${host ?? 'a socket'}:${port}`);
}
