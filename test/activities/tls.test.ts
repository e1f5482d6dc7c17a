import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { makeAuthority } from '../../lab/certificates.ts';
import type { TlsServer } from '../../lab/postgres-tls.ts';
import { startTlsPostgres } from '../../lab/postgres-tls.ts';
import type { ConnInfo } from '../../src/postgres/conninfo.ts';
import { formatConnInfo, resolveReference } from '../../src/postgres/conninfo.ts';
import { connect } from '../../src/postgres/connection.ts';
import { createSubscription, dropSubscription } from '../../src/postgres/subscription.ts';
import { subscriptionConnInfo } from '../../src/postgres/subscription-conninfo.ts';
import { dump, login, useDirectory } from '../support/connection-fixture.ts';
import { eventually } from '../support/copy-fixture.ts';

const directory = useDirectory();

describe('a server with TLS', () => {
  const authority = makeAuthority();
  let server: TlsServer;
  let ca: string;
  beforeAll(async () => {
    server = await startTlsPostgres({ major: 17 }, authority);
    ca = directory.file('ca.crt', authority.certificate);
    server.giveFile('pg_hba.conf', 'hostssl all cert_only all cert\nhostssl all,replication all all trust\n');
    await server.restart();
    await server.psql('postgres', 'CREATE ROLE cert_only LOGIN');
  });
  afterAll(() => server.remove());

  const info = (more: Record<string, string>, env: NodeJS.ProcessEnv = {}): ConnInfo =>
    resolveReference('env:X', {
      X: formatConnInfo({ host: 'localhost', port: String(server.port), user: 'postgres', ...more }),
      HOME: directory.path,
      ...env,
    });

  test.each(['allow', 'prefer', 'require'])(
    'is reached by TLS with sslmode=%s, whoever issued its certificate',
    async (sslmode) => {
      expect(await login(info({ sslmode }))).toMatchObject({ tls: true });
    },
  );

  test('is refused without TLS, and says so', async () => {
    await expect(login(info({ sslmode: 'disable' }))).rejects.toThrow(/no encryption/);
  });

  test.each(['localhost', '127.0.0.1'])('is verified in full by the name %s', async (host) => {
    expect(await login(info({ host, sslmode: 'verify-full', sslrootcert: ca }))).toMatchObject({ tls: true });
    const env = { PGSSLMODE: 'verify-full', PGSSLROOTCERT: ca, PGOPTIONS: '-c work_mem=123kB' };
    expect(await login(info({ host }, env))).toMatchObject({ tls: true, workMem: '123kB' });
  });

  test('is verified by the name of its host, where the address is given beside it', async () => {
    const by = { hostaddr: '127.0.0.1', sslmode: 'verify-full', sslrootcert: ca };
    expect(await login(info({ ...by, host: 'localhost' }))).toMatchObject({ tls: true });
    await expect(login(info({ ...by, host: 'db.example' }))).rejects.toThrow(/altnames/);
    expect(await login(info({ ...by, host: 'db.example', sslmode: 'verify-ca' }))).toMatchObject({ tls: true });
  });

  test('is refused when another authority issued its certificate, with require too where one is named', async () => {
    const other = directory.file('other.crt', makeAuthority('another CA').certificate);
    for (const sslmode of ['verify-full', 'verify-ca', 'require'])
      await expect(login(info({ sslmode, sslrootcert: other }))).rejects.toThrow(/certificate/);
    expect(await login(info({ sslmode: 'prefer', sslrootcert: other }))).toMatchObject({ tls: true });
  });

  test('cannot be verified with nothing to verify by, which is a sentence', async () => {
    await expect(login(info({ sslmode: 'verify-full' }))).rejects.toThrow(/needs a root certificate/);
    await expect(login(info({ sslmode: 'verify-full', sslrootcert: '/no/such.crt' }))).rejects.toThrow(
      'The file /no/such.crt, named by sslrootcert, cannot be read (ENOENT).',
    );
  });

  test('takes a client certificate, of its own authority', async () => {
    const by = (issuer: typeof authority) => {
      const { certificate, key } = issuer.issue('cert_only');
      return {
        user: 'cert_only',
        sslcert: directory.file('client.crt', certificate),
        sslkey: directory.file('client.key', key),
      };
    };
    const verify = { sslmode: 'verify-full', sslrootcert: ca };
    expect(await login(info({ ...verify, ...by(authority) }))).toMatchObject({ user: 'cert_only', tls: true });
    await expect(login(info({ ...verify, user: 'cert_only' }))).rejects.toThrow();
    await expect(login(info({ ...verify, ...by(makeAuthority('another CA')) }))).rejects.toThrow();
  });

  test('is reached by pg_dump in the same way', async () => {
    expect(await dump(info({ sslmode: 'verify-full', sslrootcert: ca }))).toContain('dump complete');
  });

  describe('is subscribed to', () => {
    let target: TlsServer;
    beforeAll(async () => (target = await startTlsPostgres({ major: 18 }, authority)));
    afterAll(() => target.remove());

    test('in full verification, by a file of the target server', async () => {
      await server.psql('postgres', 'CREATE PUBLICATION pgtransit_tls FOR ALL TABLES');
      await server.psql('postgres', `SELECT pg_create_logical_replication_slot('pgtransit_tls', 'pgoutput')`);
      const sslrootcert = target.giveFile('source-ca.crt', authority.certificate);
      const given = formatConnInfo({
        host: 'localhost',
        port: String(server.port),
        user: 'postgres',
        sslmode: 'verify-full',
        sslrootcert,
      });
      // The worker has files of its own, which must not get in there.
      const env = { X: given, PGSSLCERT: '/worker/client.crt', PGSSLKEY: '/worker/client.key' };
      const conninfo = subscriptionConnInfo(
        resolveReference('env:X', env, 'target-server'),
        'postgres',
        'target-server',
      );
      expect(conninfo).not.toContain('/worker/');
      const info = resolveReference('env:X', { X: target.uri() });
      const session = await connect({ server: 'target', info }, { applicationName: 'test' });
      await createSubscription(session, 'pgtransit_tls', ['pgtransit_tls'], conninfo);
      await eventually('a walsender with TLS', async () => {
        const sql = `SELECT ssl FROM pg_stat_replication JOIN pg_stat_ssl USING (pid) WHERE application_name = 'pgtransit_tls'`;
        return (await server.psql('postgres', sql)) === 't';
      });
      await dropSubscription(session, 'pgtransit_tls');
      await session.close();
    });

    test('not by a file of the worker, which is refused with a sentence', () => {
      const byFlag = info({ sslmode: 'verify-full', sslrootcert: ca });
      const byEnvironment = info({ sslmode: 'verify-ca' }, { PGSSLROOTCERT: ca });
      for (const source of [byFlag, byEnvironment, info({ sslcert: ca, sslkey: ca })])
        expect(() => subscriptionConnInfo(source, 'postgres', 'worker')).toThrow(
          `it cannot read the worker's file ${ca}`,
        );
      const unverified = subscriptionConnInfo(info({ sslmode: 'prefer', sslrootcert: ca }), 'postgres', 'worker');
      expect(unverified).not.toContain(ca);
    });
  });
});
