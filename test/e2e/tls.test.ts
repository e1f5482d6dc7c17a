import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect, test } from 'vitest';
import { makeAuthority } from '../../lab/certificates.ts';
import { startTlsPostgres } from '../../lab/postgres-tls.ts';
import { readHistory } from '../support/readable-history.ts';
import { PRINTABLE } from '../support/connection-fixture.ts';
import { leftovers, startMigration } from '../support/live-migration.ts';

test(
  'a migration between servers that are verified in full, with the password in a passfile, leaks no password',
  { timeout: 180_000 },
  async () => {
    const directory = mkdtempSync(path.join(tmpdir(), 'tls-'));
    const authority = makeAuthority();
    const options = { major: 17, auth: 'scram-sha-256' } as const;
    const [source, target] = await Promise.all([
      startTlsPostgres(options, authority),
      startTlsPostgres(options, authority),
    ]);
    const sslrootcert = path.join(directory, 'ca.crt');
    writeFileSync(sslrootcert, authority.certificate);
    const PGPASSFILE = path.join(directory, 'pgpass');
    writeFileSync(PGPASSFILE, `127.0.0.1:*:*:mover:${PRINTABLE.replace(/[\\:]/g, '\\$&')}\n`, { mode: 0o600 });
    for (const server of [source, target])
      await server.psql('postgres', `CREATE ROLE mover SUPERUSER LOGIN PASSWORD '${PRINTABLE.replaceAll("'", "''")}'`);
    await source.psql('postgres', 'CREATE DATABASE shop');
    await source.psql(
      'shop',
      'CREATE TABLE t (id serial PRIMARY KEY); INSERT INTO t SELECT FROM generate_series(1, 1000)',
    );
    const verified = { sslmode: 'verify-full', sslrootcert };
    const forTarget = { sslmode: 'verify-full', sslrootcert: target.giveFile('source-ca.crt', authority.certificate) };
    const migration = await startMigration({
      ...{ source, target, databases: ['shop'] },
      plan: { sourceForTarget: 'env:SOURCE_FOR_TARGET_SERVICE_URI', method: 'replication' },
      env: {
        PGPASSFILE,
        SOURCE_SERVICE_URI: source.uri('postgres', { user: 'mover', params: verified }),
        TARGET_SERVICE_URI: target.uri('postgres', { user: 'mover', password: PRINTABLE, params: verified }),
        SOURCE_FOR_TARGET_SERVICE_URI: source.uri('postgres', { user: 'mover', params: forTarget }),
      },
    });
    try {
      await migration.phase('streaming');
      const encrypted = `SELECT bool_and(ssl) FROM pg_stat_replication JOIN pg_stat_ssl USING (pid) WHERE usename = 'mover'`;
      expect(await source.psql('postgres', encrypted)).toBe('t');
      const conninfo = await target.psql('shop', 'SELECT subconninfo FROM pg_subscription');
      expect(conninfo).toContain(forTarget.sslrootcert);
      expect(conninfo).not.toContain(sslrootcert);
      await source.psql('shop', 'INSERT INTO t DEFAULT VALUES');
      await migration.signalStop();
      const report = await migration.report();
      const rows = 'SELECT count(*), max(id), md5(string_agg(id::text, $$,$$ ORDER BY id)) FROM t';
      expect(await target.psql('shop', rows)).toBe(await source.psql('shop', rows));
      expect(await leftovers(source, target, ['shop'])).toEqual([]);
      const histories = await Promise.all(
        [migration.id, `${migration.id}/shop`].map((id) => readHistory(migration.client, id)),
      );
      const said = JSON.stringify(report) + migration.worker.output() + histories.map(({ text }) => text).join('');
      // A piece that has no character which one of them would have to escape.
      expect(PRINTABLE).toContain('ABCDEFGHIJKLMNOPQRSTUVWXYZ');
      expect(said).not.toContain('ABCDEFGHIJKLMNOPQRSTUVWXYZ');
    } finally {
      await migration.close();
      await Promise.all([source.remove(), target.remove()]);
      rmSync(directory, { recursive: true });
    }
  },
);
