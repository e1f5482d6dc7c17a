import { existsSync, readFileSync, statSync } from 'node:fs';
import type { ConnInfo } from './conninfo.ts';

/** One server, as a line of the passfile names it. */
export interface PassfileKey {
  host: string;
  port: string;
  database: string;
  user: string;
}

type Line = readonly [host: string, port: string, database: string, user: string, password: string];

/**
 * The password that `info`'s passfile has for this server and user; undefined: none (manual, 34.16). It is looked up for
 * each connection, since a line may be about one database only.
 */
export function passwordFromFile(info: ConnInfo, { host, port, database, user }: PassfileKey): string | undefined {
  // libpq calls every socket by this name.
  const key = [host.startsWith('/') ? 'localhost' : host, port, database, user];
  const line = readLines(info['passfile']).find((fields) => key.every((value, i) => isFor(fields[i], value)));
  return line?.[4];
}

/** Every password that some database of these servers may have: whoever hides passwords must know them. */
export const passwordsInFile = (info: ConnInfo): string[] =>
  readLines(info['passfile'])
    .filter(([, , , user]) => isFor(user, info['user'] ?? ''))
    .map(([, , , , password]) => password);

const isFor = (field: string | undefined, value: string): boolean => field === '*' || field === value;

function readLines(file: string | undefined): Line[] {
  if (file === undefined || !existsSync(file)) return [];
  // As libpq: a file that others can read is not used.
  if ((statSync(file).mode & 0o077) !== 0) return [];
  const lines = readFileSync(file, 'utf8')
    .split(/\r?\n/)
    .filter((line) => line !== '' && !line.startsWith('#'));
  return lines.flatMap((line) => {
    const [host, port, database, user, password] = fieldsOf(line);
    if (host === undefined || port === undefined || database === undefined) return [];
    return user === undefined || password === undefined ? [] : [[host, port, database, user, password] as const];
  });
}

/** Parted by colons; `\:` and `\\` are the characters themselves. What follows the fifth is ignored. */
const fieldsOf = (line: string): string[] =>
  [...line.matchAll(/((?:[^:\\]|\\.|\\$)*)(:|$)/g)].map(([, field = '']) => field.replace(/\\(.)/g, '$1'));
