import type { ConnInfo } from '../postgres/conninfo.ts';
import { parseConnInfo } from '../postgres/conninfo.ts';
import { redact } from '../postgres/sqlstate.ts';

/** What this worker knows and must not say: it is taken out of failures, log lines and everything it prints. */
export interface Secrets {
  add(secret: string | undefined): void;
  addConnInfo(info: ConnInfo): void;
  mask(text: string): string;
  /** The same for every string in a JSON-like value. */
  maskAll<T>(value: T): T;
}

/** Shorter than this, literal removal would blot out syllables of ordinary words, and so betray the secret. */
const SHORTEST = 4;

const SECRET_KEYS = ['password', 'sslpassword'];

export function createSecrets(): Secrets {
  // Longest first, so that one secret within another leaves no rest.
  let known: string[] = [];
  const add = (secret: string | undefined) => {
    if (secret === undefined || secret.length < SHORTEST) return;
    known = [...new Set([...known, ...spellings(secret)])].sort((a, b) => b.length - a.length);
  };
  const mask = (text: string): string => {
    let masked = redact(text);
    for (const secret of known) masked = masked.replaceAll(secret, '***');
    return masked;
  };
  const maskAll = (value: unknown): unknown => {
    if (typeof value === 'string') return mask(value);
    if (Array.isArray(value)) return value.map(maskAll);
    if (value === null || typeof value !== 'object' || Object.getPrototypeOf(value) !== Object.prototype) return value;
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, maskAll(inner)]));
  };
  return {
    add,
    addConnInfo(info) {
      // A password that is also the user's name is no secret, and masking it would hide every user and object of that name.
      const open = [info['user'], info['dbname'], info['host']];
      for (const key of SECRET_KEYS) if (!open.includes(info[key])) add(info[key]);
    },
    mask,
    maskAll: <T>(value: T) => maskAll(value) as T,
  };
}

/** As it stands, in a URI, in JSON (log lines), in an SQL literal, in a conninfo. */
const spellings = (secret: string): string[] => [
  secret,
  encodeURIComponent(secret),
  JSON.stringify(secret).slice(1, -1),
  secret.replaceAll("'", "''"),
  secret.replaceAll('\\', '\\\\').replaceAll("'", "\\'"),
];

/** Passwords in connection strings of the environment, whatever their variables are called, and Temporal's API key. */
export function secretsOfEnvironment(env: NodeJS.ProcessEnv): Secrets {
  const secrets = createSecrets();
  secrets.add(env['TEMPORAL_API_KEY']);
  for (const [name, text] of Object.entries(env)) {
    if (text === undefined || !/^\s*postgres(ql)?:\/\/|\b(ssl)?password\s*=/.test(text)) continue;
    try {
      secrets.addConnInfo(parseConnInfo(text, name));
    } catch {
      secrets.add(text); // not a connection string after all, or one with a mistake in it
    }
  }
  const { PGPASSWORD: password, PGUSER: user } = env;
  if (password !== undefined) secrets.addConnInfo({ password, ...(user === undefined ? {} : { user }) });
  return secrets;
}
