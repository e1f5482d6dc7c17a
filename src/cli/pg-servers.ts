import { MigrationError } from '../domain/failure.ts';
import type { Plan } from '../domain/plan.ts';
import type { ConnInfo } from '../postgres/conninfo.ts';
import { parseConnInfo, resolveReference } from '../postgres/conninfo.ts';
import { requirePortable } from '../postgres/subscription-conninfo.ts';
import { UsageError } from './usage-error.ts';

/** Connection strings as they were given; they may hold passwords. */
export interface PgServers {
  source: Server;
  target: Server;
  sourceForTarget: Server | null;
}

export interface Server {
  /** URI, key=value string, `service:NAME` or `env:NAME`: what `resolveReference` takes. */
  text: string;
  /** What a plan that other workers carry out may say instead; null: the text holds a password. */
  reference: string | null;
}

const FLAGS = {
  source: ['-s/--source', 'SOURCE_SERVICE_URI'],
  target: ['-t/--target', 'TARGET_SERVICE_URI'],
  sourceForTarget: ['--source-for-target', 'SOURCE_FOR_TARGET_SERVICE_URI'],
} as const;

type Flags = Partial<Record<keyof typeof FLAGS, string>>;

/**
 * The connection strings of the flags, else of the environment.
 * @throws UsageError when one is missing, cannot be read, or names no host
 */
export function readServers(flags: Flags, env: NodeJS.ProcessEnv): PgServers {
  const missing = (['source', 'target'] as const).filter((name) => textOf(name, flags, env) === '');
  if (missing.length > 0) {
    const ways = missing.map((name) => `the ${name} (${FLAGS[name].join(' or ')})`);
    throw new UsageError(`Which servers? Name ${ways.join(' and ')}, e.g. as postgres://app@host.example:5432/app.`);
  }
  return {
    source: readServer('source', flags, env),
    target: readServer('target', flags, env),
    sourceForTarget: textOf('sourceForTarget', flags, env) === '' ? null : readServer('sourceForTarget', flags, env),
  };
}

/** One of them; null where it is not given. @throws UsageError as above */
export const readServerIfGiven = (name: 'source' | 'target', flags: Flags, env: NodeJS.ProcessEnv): Server | null =>
  textOf(name, flags, env) === '' ? null : readServer(name, flags, env);

const textOf = (name: keyof typeof FLAGS, flags: Flags, env: NodeJS.ProcessEnv): string =>
  (flags[name] ?? env[FLAGS[name][1]] ?? '').trim();

function readServer(name: keyof typeof FLAGS, flags: Flags, env: NodeJS.ProcessEnv): Server {
  const text = textOf(name, flags, env);
  const [flag, variable] = FLAGS[name];
  const where = flags[name] === undefined ? variable : flag;
  const given = asUsage(() => (/^(env|service):/.test(text) ? {} : parseConnInfo(text, where)));
  const info = asUsage(() => resolveReference(text, env));
  // libpq would take this machine, which is hardly what somebody means who moves a database to another server.
  const local = info['host'] === 'localhost' && given['host'] === undefined && given['service'] === undefined;
  if (local && !/^(env|service):/.test(text) && !env['PGHOST'] && !env['PGSERVICE'])
    throw new UsageError(`The connection string in ${where} names no host.`);
  return { text, reference: referenceFor(text, given, flags[name] === undefined ? variable : null) };
}

function referenceFor(text: string, given: ConnInfo, variable: string | null): string | null {
  if (variable !== null) return `env:${variable}`;
  return given['password'] === undefined && given['sslpassword'] === undefined ? text : null;
}

/**
 * The target server will subscribe to the source by the same string, unless it is given another one. Where that needs a
 * file of this machine it is told now, and not when everything is copied.
 */
export function requireReachableSource(servers: PgServers, method: Plan['method'], env: NodeJS.ProcessEnv): void {
  if (method === 'dump' || method === 'schema-only' || servers.sourceForTarget !== null) return;
  asUsage(() => requirePortable(resolveReference(servers.source.text, env)));
}

function asUsage<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof MigrationError)) throw error;
    throw new UsageError(error.message, { cause: error });
  }
}
