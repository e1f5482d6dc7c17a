import { chmodSync } from 'node:fs';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { createServer } from 'node:net';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { PostgresServer } from '../../lab/postgres-server.ts';
import { startPostgres } from '../../lab/postgres-server.ts';
import { freePort } from '../../src/temporal/free-port.ts';
import { formatConnInfo, parseConnInfo, resolveReference } from '../../src/postgres/conninfo.ts';
import { connect } from '../../src/postgres/connection.ts';
import { subscriptionConnInfo } from '../../src/postgres/subscription-conninfo.ts';
import { dump, login, PRINTABLE, useDirectory } from '../support/connection-fixture.ts';
import { createDatabase, dropDatabase, useServer } from '../support/servers.ts';

const { file } = useDirectory();

describe('a password with every printable character', () => {
  let server: PostgresServer;
  let at: { host: string; port: string; user: string };
  beforeAll(async () => {
    server = await startPostgres({ major: 17, auth: 'scram-sha-256' });
    await server.psql('postgres', `CREATE ROLE "o'dd %@:/?" LOGIN PASSWORD '${PRINTABLE.replaceAll("'", "''")}'`);
    at = { host: '127.0.0.1', port: String(server.port), user: "o'dd %@:/?" };
  });
  afterAll(() => server.remove());

  const uri = (more = '') =>
    `postgres://${encodeURIComponent(at.user)}:${encodeURIComponent(PRINTABLE)}@127.0.0.1:${at.port}/postgres${more}`;

  test('logs in from a URI, a key=value string, a service, the environment and the passfile', async () => {
    const expected = { user: at.user, database: 'postgres' };
    expect(await login(resolveReference('env:X', { X: uri() }))).toMatchObject(expected);
    const keywords = formatConnInfo({ ...at, password: PRINTABLE });
    expect(await login(resolveReference('env:X', { X: keywords }))).toMatchObject(expected);
    // libpq trims lines of a service file, so a password there cannot begin or end with a blank.
    const where = `host=${at.host}\nport=${at.port}\nuser=${at.user}\n`;
    const PGSERVICEFILE = file('service.conf', `[blue]\n${where}`);
    const env = { PGSERVICEFILE, PGPASSWORD: PRINTABLE };
    expect(await login(resolveReference('service:blue', env))).toMatchObject(expected);
    expect(await login(resolveReference('env:X', { ...env, X: 'service=blue dbname=postgres' }))).toMatchObject(
      expected,
    );
    expect(await login(resolveReference('env:X', { ...env, X: 'dbname=postgres', PGSERVICE: 'blue' }))).toMatchObject(
      expected,
    );
    const { host: PGHOST, port: PGPORT, user: PGUSER } = at;
    const bare = { X: 'postgres:///postgres', PGHOST, PGPORT, PGUSER, PGPASSWORD: PRINTABLE };
    expect(await login(resolveReference('env:X', bare))).toMatchObject(expected);
    expect(
      await login(resolveReference('env:X', { ...bare, PGPASSWORD: '', PGPASSFILE: passfile('*') })),
    ).toMatchObject(expected);
  });

  const escaped = (text: string) => text.replace(/[\\:]/g, '\\$&');
  const passfile = (database: string) =>
    file(
      'pgpass',
      `# mine\n*:1:*:*:wrong\n127.0.0.1:${at.port}:${database}:${escaped(at.user)}:${escaped(PRINTABLE)}\n`,
    );
  const byPassfile = (PGPASSFILE: string) => resolveReference('env:X', { X: formatConnInfo(at), PGPASSFILE });

  test('comes from the passfile for the database that its line names, and for no other', async () => {
    const info = byPassfile(passfile('postgres'));
    expect(await login(info)).toMatchObject({ user: at.user });
    await expect(login(info, 'template1')).rejects.toMatchObject({
      type: 'AuthenticationFailed',
      message: expect.stringContaining('asks for a password') as unknown,
    });
  });

  test('is not taken from a passfile that others can read, as libpq does not', async () => {
    const info = byPassfile(passfile('*'));
    chmodSync(info['passfile'] ?? '', 0o644);
    await expect(login(info)).rejects.toMatchObject({ type: 'AuthenticationFailed' });
  });

  test('reaches pg_dump and a subscription, from wherever it came', async () => {
    const sources = [resolveReference('env:X', { X: uri() }), byPassfile(passfile('*'))];
    for (const info of sources) {
      expect(await dump(info)).toContain('PostgreSQL database dump complete');
      // The server's own libpq reads the string, as it will for the subscription.
      const conninfo = subscriptionConnInfo(info, 'postgres', 'worker').replaceAll("'", "''");
      const name = `by_${sources.indexOf(info)}`;
      await server.psql(
        'template1',
        `CREATE SUBSCRIPTION ${name} CONNECTION '${conninfo}' PUBLICATION none WITH (create_slot = false, enabled = false, slot_name = NONE, connect = false)`,
      );
      await server.psql('template1', `ALTER SUBSCRIPTION ${name} CONNECTION '${conninfo}'; DROP SUBSCRIPTION ${name}`);
    }
  });

  test('that is wrong, or missing, is one sentence without it', async () => {
    const wrong = await login({ ...at, dbname: 'postgres', password: 'hush-hush' }).catch((error: unknown) =>
      String(error),
    );
    expect(wrong).toContain(`connecting to database "postgres" at 127.0.0.1:${at.port} as "${at.user}"`);
    expect(wrong).not.toContain('hush');
    // What the process itself has in its environment belongs to no server in particular.
    process.env['PGPASSWORD'] = PRINTABLE;
    try {
      await expect(login(at)).rejects.toMatchObject({ type: 'AuthenticationFailed' });
    } finally {
      delete process.env['PGPASSWORD'];
    }
  });
});

test('a database that takes no connections for now is tried again, as a server that restarts', async () => {
  const server = await useServer(17);
  const { name } = await createDatabase(server.uri());
  await server.psql('postgres', `ALTER DATABASE ${name} ALLOW_CONNECTIONS false`);
  const info = parseConnInfo(server.uri(name), 'the test');
  await expect(connect({ server: 'source', info }, { applicationName: 'test' })).rejects.toMatchObject({
    type: 'ConnectionFailed',
    retryable: true,
    message: expect.stringContaining('is not currently accepting connections') as string,
  });
  await dropDatabase(server.uri(), name);
});

test('a server that takes connections and never answers is given up after connect_timeout', async () => {
  const silent = createServer(() => undefined).listen(0, '127.0.0.1');
  await once(silent, 'listening');
  const { port } = silent.address() as AddressInfo;
  const X = `host=127.0.0.1 port=${port} user=me`;
  for (const info of [
    resolveReference('env:X', { X: `${X} connect_timeout=1` }),
    resolveReference('env:X', { X, PGCONNECT_TIMEOUT: '1' }),
  ]) {
    const began = Date.now();
    await expect(login(info)).rejects.toMatchObject({ type: 'ConnectionFailed' });
    expect(Date.now() - began).toBeLessThan(4_000);
  }
  silent.close();
});

describe('a connection string with several hosts', () => {
  let first: PostgresServer;
  let second: PostgresServer;
  beforeAll(async () => {
    [first, second] = await Promise.all([
      startPostgres({ major: 17, auth: 'scram-sha-256', password: 'one' }),
      startPostgres({ major: 17, auth: 'scram-sha-256', password: 'two' }),
    ]);
  });
  afterAll(() => Promise.all([first.remove(), second.remove()]));

  const hosts = (...ports: number[]) => ports.map((port) => `127.0.0.1:${port}`).join(',');
  const resolve = (X: string, env: NodeJS.ProcessEnv = {}) => resolveReference('env:X', { X, ...env });

  test('goes to the first that answers, each with its own password of the passfile', async () => {
    const dead = await freePort();
    const PGPASSFILE = file('hosts', `*:${first.port}:*:*:one\n*:${second.port}:*:*:two\n`);
    const info = resolve(`postgres://postgres@${hosts(dead, second.port, first.port)}/postgres`, { PGPASSFILE });
    expect(await login(info)).toMatchObject({ port: second.port });
  });

  test('tries no further host when one refuses the password', async () => {
    const info = resolve(`postgres://postgres:two@${hosts(first.port, second.port)}/postgres`);
    await expect(login(info)).rejects.toMatchObject({ type: 'AuthenticationFailed' });
  });

  test('takes the one of the wanted kind, and names each when there is none', async () => {
    const either = `postgres://postgres:two@${hosts(await freePort(), second.port)}/postgres?target_session_attrs=`;
    expect(await login(resolve(`${either}primary`))).toMatchObject({ port: second.port });
    expect(await login(resolve(`${either}prefer-standby`))).toMatchObject({ port: second.port });
    const none = await login(resolve(`${either}standby`)).catch((error: unknown) => String(error));
    expect(none).toMatch(/ECONNREFUSED.*the server is not standby/s);
  });

  test('gives a session the address that it has, for its programs and for ending it', async () => {
    const info = resolve(
      `postgres://postgres:two@${hosts(await freePort(), second.port)}/postgres?target_session_attrs=any`,
    );
    const session = await connect({ server: 'source', info }, { applicationName: 'test' });
    expect(session.endpoint.info).toMatchObject({ host: '127.0.0.1', port: String(second.port) });
    await session.close();
  });

  test('finds one whose name is only known by its address', async () => {
    const info = resolve(`host=nowhere.invalid hostaddr=127.0.0.1 port=${second.port} user=postgres password=two`);
    expect(await login(info)).toMatchObject({ port: second.port });
  });
});
