import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { MigrationError } from '../domain/failure.ts';

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
    return /^postgres(ql)?:\/\//.test(trimmed) ? parseUri(trimmed) : parseKeywords(trimmed);
  } catch (error) {
    const reason = error instanceof Error ? error.message : 'it cannot be read';
    throw new MigrationError('InvalidPlan', `The connection string in ${name} is not valid: ${reason}.`);
  }
}

function parseUri(uri: string): ConnInfo {
  const parts = URI.exec(uri)?.groups;
  if (parts === undefined)
    throw new Error('it is no postgres:// URI (an "@" or "/" in the password must be written %40 or %2F)');
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
    const match = /^(?<host>\[[^\]]*\]|[^:]*)(?::(?<port>\d*))?$/.exec(entry)?.groups;
    if (match === undefined) throw new Error('a host and port in it cannot be told apart');
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

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new Error('a "%" in it is not followed by two hex digits (write a plain % as %25)');
  }
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

/** libpq's own format; the target server reads it in CREATE SUBSCRIPTION, pg_dump in its dbname argument. */
export const formatConnInfo = (info: ConnInfo): string =>
  Object.entries(info)
    .map(([key, value]) => `${key}='${value.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`)
    .join(' ');

/** A section of pg_service.conf (PGSERVICEFILE, else ~/.pg_service.conf). */
export function readService(service: string, env: NodeJS.ProcessEnv): ConnInfo {
  const file = env['PGSERVICEFILE'] ?? join(homedir(), '.pg_service.conf');
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch {
    throw new MigrationError('InvalidPlan', `The service file ${file} of the worker cannot be read.`);
  }
  let current = '';
  const info: Record<string, string> = {};
  let found = false;
  for (const line of text.split(/\r?\n/).map((line) => line.trim())) {
    const section = /^\[(.*)\]$/.exec(line)?.[1];
    if (section !== undefined) current = section;
    found ||= current === service;
    const equals = line.indexOf('=');
    if (current === service && equals > 0 && !line.startsWith('#'))
      info[line.slice(0, equals).trim()] = line.slice(equals + 1).trim();
  }
  if (!found)
    throw new MigrationError('InvalidPlan', `The service file ${file} of the worker has no section [${service}].`);
  return info;
}

/**
 * Turns a plan's reference into connection parameters, as the worker sees them.
 * @throws MigrationError `InvalidPlan` when the variable is not set or its text cannot be read.
 */
export function resolveReference(reference: string, env: NodeJS.ProcessEnv): ConnInfo {
  if (reference.startsWith('env:')) {
    const name = reference.slice('env:'.length);
    const text = env[name];
    if (text === undefined || text.trim() === '')
      throw new MigrationError('InvalidPlan', `The environment variable ${name} is not set in the worker.`);
    return withDefaults(parseConnInfo(text, name), env);
  }
  if (reference.startsWith('service:')) return withDefaults(readService(reference.slice('service:'.length), env), env);
  return withDefaults(parseConnInfo(reference, 'the plan'), env);
}

function withDefaults(info: ConnInfo, env: NodeJS.ProcessEnv): ConnInfo {
  const user = info['user'] ?? env['PGUSER'] ?? env['USER'] ?? 'postgres';
  const timeout = info['connect_timeout'] ?? env['PGCONNECT_TIMEOUT'];
  return {
    ...info,
    host: info['host'] ?? info['hostaddr'] ?? env['PGHOST'] ?? 'localhost',
    user,
    // libpq would take the user's name; a migration of all databases connects to one that every server has.
    dbname: info['dbname'] ?? 'postgres',
    ...(timeout === undefined ? {} : { connect_timeout: timeout }),
  };
}
