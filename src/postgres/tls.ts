import { existsSync, readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { checkServerIdentity } from 'node:tls';
import type { PeerCertificate, SecureVersion } from 'node:tls';
import type pg from 'pg';
import { MigrationError } from '../domain/failure.ts';
import type { ConnInfo } from './conninfo.ts';

export type TlsOptions = Exclude<pg.ClientConfig['ssl'], undefined | boolean>;

/** With TLS and without, in the order in which libpq tries them (manual, 34.19.1). */
export function encryptions(info: ConnInfo, host: string): ('tls' | 'plain')[] {
  const mode = sslMode(info);
  if (mode === 'disable' || host.startsWith('/')) return ['plain'];
  if (mode === 'allow') return ['plain', 'tls'];
  return mode === 'prefer' ? ['tls', 'plain'] : ['tls'];
}

const sslMode = (info: ConnInfo): string =>
  info['sslmode'] ?? (info['sslrootcert'] === 'system' ? 'verify-full' : 'prefer');

/**
 * libpq's meaning of sslmode: only verify-* look at the certificate, and `require` where a root certificate is given.
 * @throws MigrationError `InvalidPlan` when there is nothing to verify against, or a file cannot be read
 */
export function tlsOptions(info: ConnInfo, host: string): TlsOptions {
  const mode = sslMode(info);
  const root = info['sslrootcert'] ?? atHome('root.crt');
  const verifies = mode.startsWith('verify') || (mode === 'require' && root !== undefined);
  if (verifies && root === undefined)
    throw new MigrationError(
      'InvalidPlan',
      `sslmode=${mode} needs a root certificate to verify with: name its file in sslrootcert, put it into ` +
        '~/.postgresql/root.crt, or say sslrootcert=system.',
    );
  const [cert, key] = [info['sslcert'] ?? atHome('postgresql.crt'), info['sslkey'] ?? atHome('postgresql.key')];
  const [least, most] = [info['ssl_min_protocol_version'], info['ssl_max_protocol_version']];
  return {
    ...(verifies && root !== undefined && root !== 'system' && { ca: read('sslrootcert', root) }),
    ...(verifies && info['sslcrl'] !== undefined && { crl: read('sslcrl', info['sslcrl']) }),
    ...(cert !== undefined && key !== undefined && { cert: read('sslcert', cert), key: read('sslkey', key) }),
    ...(least !== undefined && { minVersion: least as SecureVersion }),
    ...(most !== undefined && { maxVersion: most as SecureVersion }),
    // Where the connection goes to an address, this still names the server.
    ...(isIP(host) === 0 && { servername: host }),
    rejectUnauthorized: verifies,
    checkServerIdentity: (_: string, certificate: PeerCertificate) =>
      mode === 'verify-full' ? checkServerIdentity(host, certificate) : undefined,
  };
}

function atHome(name: string): string | undefined {
  const file = join(homedir(), '.postgresql', name);
  return existsSync(file) ? file : undefined;
}

function read(parameter: string, file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown reason';
    throw new MigrationError('InvalidPlan', `The file ${file}, named by ${parameter}, cannot be read (${code}).`);
  }
}
