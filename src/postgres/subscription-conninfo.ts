import { MigrationError } from '../domain/failure.ts';
import type { ConnInfo, Reader } from './conninfo.ts';
import { formatConnInfo } from './conninfo.ts';
import { hostsOf } from './hosts.ts';
import { FILE_PARAMETERS } from './libpq-parameters.ts';
import { passwordFromFile } from './passfile.ts';

/** Ours or PostgreSQL's own in a subscription, or read by the worker already. */
const NOT_CARRIED: readonly string[] = ['dbname', 'passfile', 'application_name', 'client_encoding', 'requirepeer'];

/**
 * How the target server reaches the source. Services and passfiles of the worker are in `info` by now, as what they say.
 * `writtenFor`: whose file names it holds.
 * @throws MigrationError `InvalidPlan` when that needs a file that only the worker has
 */
export function subscriptionConnInfo(info: ConnInfo, database: string, writtenFor: Reader): string {
  if (writtenFor === 'worker') requirePortable(info);
  const dropped = writtenFor === 'worker' ? [...NOT_CARRIED, ...FILE_PARAMETERS] : NOT_CARRIED;
  const kept = Object.entries(info).filter(([key, value]) => !dropped.includes(key) || value === 'system');
  const password = info['password'] ?? commonPassword(info, database);
  return formatConnInfo({
    ...Object.fromEntries(kept),
    ...(password === undefined ? {} : { password }),
    dbname: database,
  });
}

/**
 * Refuses a connection string that was written for the worker and means nothing on the target server.
 * @throws MigrationError `InvalidPlan`
 */
export function requirePortable(info: ConnInfo): void {
  const verifies = (info['sslmode'] ?? '').startsWith('verify') || info['sslmode'] === 'require';
  const file = FILE_PARAMETERS.find((key) => {
    if (info[key] === undefined || info[key] === 'system') return false;
    return verifies || key === 'sslcert' || key === 'sslkey';
  });
  if (file === undefined) return;
  throw new MigrationError(
    'InvalidPlan',
    `The target server is to subscribe to the source, but it cannot read the worker's file ${info[file]} (${file}). ` +
      'Say how the target server reaches the source (sourceForTarget, --source-for-target), with paths of files there.',
    { next: 'Give "sourceForTarget" a connection string that means the same on the target server.' },
  );
}

/** A subscription has one password for all hosts. */
function commonPassword(info: ConnInfo, database: string): string | undefined {
  const user = info['user'] ?? '';
  const passwords = hostsOf(info).map(({ host, port }) =>
    passwordFromFile(info, { host, port: String(port), database, user }),
  );
  if (new Set(passwords).size <= 1) return passwords[0];
  throw new MigrationError(
    'InvalidPlan',
    'The passfile has different passwords for the hosts of the source, and a subscription can hold one only.',
    { next: 'Give "sourceForTarget" a connection string with one host, or one password for all.' },
  );
}
