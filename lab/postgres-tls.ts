import { appendFileSync, chownSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { Authority, Issued } from './certificates.ts';
import type { PostgresServer, StartPostgresOptions } from './postgres-server.ts';
import { startPostgres } from './postgres-server.ts';

export interface TlsServer extends PostgresServer {
  /** A copy of a file where the server's user can read it; returns its path. */
  giveFile(name: string, content: string): string;
}

/** A server that takes connections from elsewhere with TLS only; its certificate is for 127.0.0.1 and localhost. */
export async function startTlsPostgres(
  options: StartPostgresOptions,
  authority: Authority,
  issued: Issued = authority.issue('localhost', { names: ['localhost'], addresses: ['127.0.0.1'] }),
): Promise<TlsServer> {
  const server = await startPostgres(options);
  const { uid, gid } = statSync(server.dataDir);
  const giveFile = (name: string, content: string): string => {
    const file = path.join(server.dataDir, name);
    writeFileSync(file, content, { mode: 0o600 });
    chownSync(file, uid, gid);
    return file;
  };
  const files = {
    ssl_cert_file: giveFile('tls.crt', issued.certificate),
    ssl_key_file: giveFile('tls.key', issued.key),
    ssl_ca_file: giveFile('tls-ca.crt', authority.certificate),
  };
  const settings = Object.entries(files).map(([name, file]) => `${name} = '${file}'\n`);
  appendFileSync(path.join(server.dataDir, 'postgresql.conf'), `ssl = on\n${settings.join('')}`);
  const access = path.join(server.dataDir, 'pg_hba.conf');
  writeFileSync(access, readFileSync(access, 'utf8').replace(/^host\b/gm, 'hostssl'));
  await server.restart();
  return Object.assign(server, { giveFile });
}
