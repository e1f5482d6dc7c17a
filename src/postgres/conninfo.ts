import { existsSync } from 'node:fs';
import { homedir, userInfo } from 'node:os';
import { join } from 'node:path';
import { MigrationError } from '../domain/failure.ts';
import { FILE_PARAMETERS, nearestParameter, PARAMETERS } from './libpq-parameters.ts';
import { readService } from './service-file.ts';

/**
 * libpq's connection parameters (PostgreSQL manual, 34.1.2), by their names. No npm library reads all of libpq's
 * forms (several hosts, key=value, pg_service.conf), so this does; `pg` gets the result, never the string.
 */
export type ConnInfo = Readonly<Record<string, string>>;

const URI =
  /^postgres(?:ql)?:\/\/(?:(?<userinfo>[^@/?]*)@)?(?<hosts>[^/?]*)(?:\/(?<database>[^?]*))?(?:\?(?<query>.*))?$/s;

/**
 * Reads a URI or a key=value string.
 * @throws MigrationError `InvalidPlan`; the text is not repeated, since it may hold a password.
 */
export function parseConnInfo(text: string, name: string): ConnInfo {
  const trimmed = text.trim();
  try {
    const info = /^postgres(ql)?:\/\//.test(trimmed) ? parseUri(trimmed) : parseKeywords(trimmed);
    requireKnown(info);
    return info;
  } catch (error) {
    const reason = error instanceof Error ? error.message : 'it cannot be read';
    throw new MigrationError('InvalidPlan', `The connection string in ${name} is not valid: ${reason}.`);
  }
}

function parseUri(uri: string): ConnInfo {
  const parts = URI.exec(uri)?.groups;
  if (parts === undefined) throw new Error(`it is no postgres:// URI (${ESCAPE_PASSWORD})`);
  const info: Record<string, string> = {};
  if (parts['userinfo'] !== undefined) {
    const colon = parts['userinfo'].indexOf(':');
    const user = colon < 0 ? parts['userinfo'] : parts['userinfo'].slice(0, colon);
    if (user !== '') info['user'] = decode(user);
    if (colon >= 0) info['password'] = decode(parts['userinfo'].slice(colon + 1));
  }
  const hosts: string[] = [];
  const ports: string[] = [];
  for (const entry of (parts['hosts'] ?? '').split(',')) {
    // Another "@" is the rest of a password, and would be shown as a host's name.
    const match = /^(?<host>\[[^\]]*\]|[^:@]*)(?::(?<port>\d*))?$/.exec(entry)?.groups;
    if (match === undefined) throw new Error(`host and port in it cannot be told apart (${ESCAPE_PASSWORD})`);
    hosts.push(decode((match['host'] ?? '').replace(/^\[|\]$/g, '')));
    ports.push(match['port'] ?? '');
  }
  if (hosts.some((host) => host !== '')) info['host'] = hosts.join(',');
  if (ports.some((port) => port !== '')) info['port'] = ports.join(',');
  if (parts['database']) info['dbname'] = decode(parts['database']);
  for (const pair of (parts['query'] ?? '').split('&').filter((pair) => pair !== '')) {
    const equals = pair.indexOf('=');
    if (equals < 0) throw new Error('a parameter after "?" has no "="');
    const key = decode(pair.slice(0, equals));
    if (key === 'ssl' && pair.endsWith('=true')) info['sslmode'] = 'require';
    else info[key] = decode(pair.slice(equals + 1));
  }
  return info;
}

const ESCAPE_PASSWORD = 'an "@", ":", "/" or "?" in a password is written %40, %3A, %2F or %3F';

function decode(text: string): string {
  let decoded: string;
  try {
    decoded = decodeURIComponent(text);
  } catch {
    throw new Error('a "%" in it is not followed by two hex digits (write a plain % as %25)');
  }
  if (decoded.includes('\0')) throw new Error('it holds %00, which no parameter may');
  return decoded;
}

function parseKeywords(text: string): ConnInfo {
  const info: Record<string, string> = {};
  const pair =
    /\s*(?<key>[A-Za-z_][A-Za-z0-9_]*)\s*=\s*(?:'(?<quoted>(?:[^'\\]|\\.)*)'|(?<plain>(?:[^\s'\\]|\\.)*))(?:\s+|$)/gsy;
  let end = 0;
  for (let match = pair.exec(text); match !== null; match = pair.exec(text)) {
    const { key, quoted, plain } = match.groups ?? {};
    info[key ?? ''] = (quoted ?? plain ?? '').replace(/\\(.)/gs, '$1');
    end = pair.lastIndex;
    if (end === text.length) break;
  }
  if (end !== text.length || end === 0) throw new Error('it is neither a postgres:// URI nor key=value pairs');
  return info;
}

/** The wrong name itself may be the rest of a password, so it is named by what it resembles. */
function requireKnown(info: ConnInfo): void {
  const unknown = Object.keys(info).find((key) => !(key in PARAMETERS));
  if (unknown === undefined) return;
  const near = nearestParameter(unknown);
  const hint = near === null ? '' : ` (is ${near} meant?)`;
  throw new Error(`it holds a parameter that libpq does not know${hint}`);
}

/** libpq's own format; the target server reads it in CREATE SUBSCRIPTION, pg_dump in its dbname argument. */
export const formatConnInfo = (info: ConnInfo): string =>
  Object.entries(info)
    .map(([key, value]) => `${key}='${value.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`)
    .join(' ');

/** Who will connect: where it is the target server, the worker's certificate files mean nothing. */
export type Reader = 'worker' | 'target-server';

/**
 * Turns a plan's reference into connection parameters, as the worker sees them.
 * @throws MigrationError `InvalidPlan` when the variable is not set or its text cannot be read.
 */
export function resolveReference(reference: string, env: NodeJS.ProcessEnv, reader: Reader = 'worker'): ConnInfo {
  if (reference.startsWith('env:')) {
    const name = reference.slice('env:'.length);
    const text = env[name];
    if (text === undefined || text.trim() === '')
      throw new MigrationError('InvalidPlan', `The environment variable ${name} is not set in the worker.`);
    return completeConnInfo(parseConnInfo(text, name), env, reader);
  }
  if (reference.startsWith('service:'))
    return completeConnInfo({ service: reference.slice('service:'.length) }, env, reader);
  return completeConnInfo(parseConnInfo(reference, 'the plan'), env, reader);
}

/**
 * What a connection string leaves open, filled in as libpq does: first from its service, then from the environment, then
 * by defaults. So the result means the same in this process, in a client program and on another machine.
 * @throws MigrationError `InvalidPlan` for a service that is not there, or what this program cannot do
 */
export function completeConnInfo(given: ConnInfo, env: NodeJS.ProcessEnv, reader: Reader = 'worker'): ConnInfo {
  const { service = env['PGSERVICE'] ?? '', servicefile, ...own } = given;
  const info: Record<string, string> = {
    ...(service === '' ? {} : readService(service, env, servicefile)),
    ...own,
  };
  for (const [key, variable] of Object.entries(PARAMETERS)) {
    const value = variable === null ? undefined : env[variable];
    if (info[key] !== undefined || value === undefined || value === '' || NOT_TAKEN.includes(key)) continue;
    if (reader === 'worker' || !FILE_PARAMETERS.includes(key)) info[key] = value;
  }
  info['user'] ??= env['USER'] ?? userInfo().username;
  // libpq would take the user's name; a migration of all databases connects to one that every server has.
  info['dbname'] ??= 'postgres';
  if (info['hostaddr'] === undefined) info['host'] ??= 'localhost';
  const home = join(env['HOME'] || homedir(), '.pgpass');
  if (info['password'] === undefined && existsSync(home)) info['passfile'] ??= home;
  requireSupported(info);
  return info;
}

/** Ours to decide, whatever the environment says: how text is encoded, what a session is called. */
const NOT_TAKEN: readonly string[] = ['service', 'servicefile', 'client_encoding', 'application_name'];

function requireSupported(info: ConnInfo): void {
  const problem =
    info['sslpassword'] !== undefined
      ? 'sslpassword cannot be handed to pg_dump; use a key without a passphrase'
      : info['sslcrldir'] !== undefined
        ? 'sslcrldir is not supported; give the revoked certificates as one file in sslcrl'
        : info['gssencmode'] === 'require'
          ? 'encryption by GSSAPI is not supported; use TLS'
          : info['sslrootcert'] === 'system' && !['verify-full', undefined].includes(info['sslmode'])
            ? `sslrootcert=system goes with sslmode=verify-full only, not with ${info['sslmode']}`
            : null;
  if (problem !== null)
    throw new MigrationError('InvalidPlan', `A connection cannot be made as asked for: ${problem}.`);
}
