import { readFileSync } from 'node:fs';
import net from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { PostgresServer } from '../../lab/postgres-server.ts';
import { startPostgres } from '../../lab/postgres-server.ts';
import { inspectDatabase, withCode } from './preflight-support.ts';

const SECRET = "it's a %s secret";

let source: PostgresServer;
/** Lets everybody in, so it never asks for a password. */
let trusting: PostgresServer;
let target: PostgresServer;

beforeAll(async () => {
  [source, trusting, target] = await Promise.all([
    startPostgres({ major: 17, auth: 'scram-sha-256', password: SECRET }),
    startPostgres({ major: 17 }),
    startPostgres({ major: 18 }),
  ]);
  for (const server of [source, trusting]) {
    await server.psql('postgres', 'CREATE DATABASE shop');
    await server.psql('shop', 'CREATE TABLE t (id int PRIMARY KEY)');
  }
  await target.psql(
    'postgres',
    `CREATE ROLE sub LOGIN CREATEDB IN ROLE pg_create_subscription; CREATE DATABASE shop;
     CREATE ROLE other LOGIN CREATEDB IN ROLE pg_create_subscription; GRANT CREATE ON DATABASE shop TO sub`,
  );
});

afterAll(() => Promise.all([source, trusting, target].map((server) => server.remove())));

const TRACES = `SELECT (SELECT count(*) FROM pg_subscription) || ' ' || (SELECT count(*) FROM pg_replication_origin) || ' ' ||
  (SELECT count(*) FROM pg_proc WHERE proname LIKE 'pgtransit%')`;
const SOURCE_TRACES = `SELECT (SELECT count(*) FROM pg_publication) || ' ' || (SELECT count(*) FROM pg_replication_slots)`;

async function expectNoTraces(): Promise<void> {
  expect(await target.psql('shop', TRACES)).toBe('0 0 0');
  expect(await target.psql('postgres', TRACES)).toBe('0 0 0');
  expect(await source.psql('shop', SOURCE_TRACES)).toBe('0 0');
  for (const server of [source, target]) expect(readFileSync(server.logFile, 'utf8')).not.toContain('secret');
}

async function look({ user = 'postgres', from = source, via }: { user?: string; from?: PostgresServer; via?: string }) {
  const servers = {
    source: from.uri(),
    target: target.uri(undefined, { user }),
    ...(via === undefined ? {} : { sourceForTarget: via }),
  };
  const plan = { method: 'replication', ...(via === undefined ? {} : { sourceForTarget: 'env:U' }) };
  const { findings } = await inspectDatabase(servers, 'shop', plan);
  expect(JSON.stringify(findings)).not.toContain('secret');
  return withCode(findings, 'source-for-target');
}

describe('whether the target server reaches the source', () => {
  it.each(['postgres', 'sub'])('is tried by the target itself as %s, and nothing is left of it', async (user) => {
    expect(await look({ user })).toEqual([]);
    await expectNoTraces();
  });

  it.each(['postgres', 'sub'])(
    'is an error for %s with what the source says, and without the password',
    async (user) => {
      const wrong = source.uri(undefined, { user: 'postgres', password: 'a-wrong-secret' });
      expect(await look({ user, via: wrong })).toMatchObject([
        {
          severity: 'error',
          server: 'target',
          message: expect.stringMatching(/password authentication failed/) as string,
        },
      ]);
      const closed = source.uri().replace(`:${source.port}/`, ':1/');
      expect(await look({ user, via: closed })).toMatchObject([
        { message: expect.stringMatching(/source at 127\.0\.0\.1:1; .*Connection refused/) as string },
      ]);
      await expectNoTraces();
    },
  );

  it('fails for a role without superuser rights where the source asks for no password', async () => {
    const given = trusting.uri(undefined, { user: 'postgres', password: 'never-asked' });
    expect(await look({ from: trusting, via: given })).toEqual([]);
    expect(await look({ user: 'sub', from: trusting, via: given })).toMatchObject([
      { severity: 'error', message: expect.stringMatching(/password is required/) as string },
    ]);
  });

  it('is unknown, as a warning, to a role that may not try, which is told how to by hand', async () => {
    const [found] = await look({ user: 'other' });
    expect(found).toMatchObject({ severity: 'warning', unknown: true });
    expect(found?.remedy).toMatch(/^On the target's host: psql '.*host=.*127\.0\.0\.1.*' -c 'SELECT 1'$/);
  });

  it('is tried by dblink where that is there', async () => {
    await target.psql(
      'shop',
      'CREATE SCHEMA tools; CREATE EXTENSION dblink SCHEMA tools; GRANT USAGE ON SCHEMA tools TO other',
    );
    expect(await look({ user: 'other' })).toEqual([]);
    const wrong = source.uri(undefined, { user: 'postgres', password: 'a-wrong-secret' });
    expect(await look({ user: 'other', via: wrong })).toMatchObject([
      { severity: 'error', message: expect.stringMatching(/password authentication failed/) as string },
    ]);
    await target.psql('shop', 'REVOKE USAGE ON SCHEMA tools FROM other');
    expect(await look({ user: 'other' })).toMatchObject([{ unknown: true }]);
    await target.psql('shop', 'DROP SCHEMA tools CASCADE');
    await expectNoTraces();
  });

  it('is given up after a while where nobody answers; and a trial that is killed leaves nothing either', async () => {
    const silent = net.createServer();
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
    const { port } = silent.address() as net.AddressInfo;
    const via = source.uri().replace(`:${source.port}/`, `:${port}/`);
    try {
      const started = Date.now();
      expect(await look({ user: 'sub', via })).toMatchObject([
        { severity: 'error', message: expect.stringMatching(/there was no answer within 5 s/) as string },
      ]);
      // The check as a whole may take 20 s.
      expect(Date.now() - started).toBeLessThan(15_000);
      const dying = look({ user: 'sub', via });
      dying.catch(() => undefined);
      const kill = `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'DO $hidden$%' AND pid <> pg_backend_pid()`;
      await expect.poll(() => target.psql('postgres', kill), { timeout: 20_000 }).toBe('1');
      await expect(dying).rejects.toMatchObject({ type: 'ConnectionFailed' });
      await expectNoTraces();
    } finally {
      silent.close();
    }
  });

  it.each([14, 15])('is tried on %i too', async (major) => {
    const older = await startPostgres({ major });
    try {
      const servers = { source: older.uri(), target: older.uri() };
      await older.psql('postgres', 'CREATE DATABASE shop');
      const via = async (uri: string) => {
        const plan = { method: 'replication', sourceForTarget: 'env:U' };
        const { findings } = await inspectDatabase({ ...servers, sourceForTarget: uri }, 'shop', plan);
        return withCode(findings, 'source-for-target');
      };
      expect(await via(source.uri())).toEqual([]);
      expect(await via(source.uri().replace(`:${source.port}/`, ':1/'))).toMatchObject([{ severity: 'error' }]);
      expect(await older.psql('shop', TRACES)).toBe('0 0 0');
      expect(readFileSync(older.logFile, 'utf8')).not.toContain('secret');
    } finally {
      await older.remove();
    }
  });
});
