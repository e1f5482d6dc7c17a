import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { PostgresServer } from '../../lab/postgres-server.ts';
import { startPostgres } from '../../lab/postgres-server.ts';
import type { Session } from '../../src/postgres/connection.ts';
import { eventually, runActivity } from '../support/copy-fixture.ts';
import type { ReplicationFixture } from '../support/replication-fixture.ts';
import { replicationFixture, startWriter } from '../support/replication-fixture.ts';

let server: PostgresServer;
beforeAll(async () => {
  server = await startPostgres({ major: 17 });
  await server.psql(
    'postgres',
    `CREATE ROLE "the owner" LOGIN; CREATE ROLE app LOGIN; CREATE ROLE reader LOGIN; CREATE ROLE staff; CREATE ROLE "o'hara" LOGIN;
     GRANT staff TO reader; CREATE ROLE mover LOGIN REPLICATION;
     GRANT "the owner", app, pg_read_all_stats, pg_signal_backend, pg_read_all_data TO mover`,
  );
});
afterAll(() => server.remove());

/** The migration's role on the source is mover, a member of the owner and no superuser. */
async function fixture(): Promise<ReplicationFixture> {
  const f = await replicationFixture({
    source: server,
    sourceUri: (database) => server.uri(database, { user: 'mover' }),
    schema: 'CREATE TABLE public.t (id serial PRIMARY KEY)',
  });
  await f.source.query(
    `ALTER DATABASE "${f.m.database}" OWNER TO "the owner"; ALTER TABLE public.t OWNER TO "the owner";
     GRANT INSERT ON public.t TO PUBLIC; GRANT USAGE ON SEQUENCE public.t_id_seq TO PUBLIC`,
  );
  return f;
}

/** From outside the database, where nobody's session is ended. */
const rights = (database: string, what = 'CONNECT'): Promise<string> =>
  server.psql(
    'postgres',
    `SELECT string_agg(format('%s gives %s%s', a.grantor::regrole, CASE a.grantee WHEN 0 THEN 'all' ELSE a.grantee::regrole::text END,
              CASE WHEN is_grantable THEN ' on' END), ', ' ORDER BY 1)
       FROM pg_database d, aclexplode(coalesce(datacl, acldefault('d', datdba))) a
      WHERE datname = '${database}' AND privilege_type = '${what}'`,
  );

const connects = async (database: string, user: string): Promise<boolean> => {
  const client = new pg.Client({ connectionString: server.uri(database, { user }) });
  try {
    await client.connect();
    return true;
  } catch (error) {
    expect((error as pg.DatabaseError).code).toBe('42501');
    return false;
  } finally {
    await client.end();
  }
};

test('a lock-out lets in nobody but us, while changes go on arriving, and lifting it puts every grant back', async () => {
  const f = await fixture();
  const { database } = f.m;
  await f.source.query(
    `REVOKE CONNECT ON DATABASE "${database}" FROM PUBLIC; GRANT CONNECT ON DATABASE "${database}" TO app WITH GRANT OPTION;
     GRANT CONNECT ON DATABASE "${database}" TO staff; SET ROLE app; GRANT CONNECT ON DATABASE "${database}" TO "o'hara"; RESET ROLE`,
  );
  const before = await rights(database);
  expect(before).toContain(`app gives "o'hara"`);
  await f.stream();
  const writer = startWriter(server.uri(database, { user: 'the owner' }), 'INSERT INTO public.t DEFAULT VALUES', 100);
  await eventually('writes', () => Promise.resolve(writer.written() > 3));
  const ended = writer.stopped.then(
    () => 'stopped',
    () => 'ended',
  );

  await runActivity(f.steps.fence, [f.m, 'lock-out']);
  expect(await ended).toBe('ended');
  expect(await rights(database)).toBe('"the owner" gives mover');
  for (const user of ['the owner', 'app', 'reader', "o'hara"]) expect(await connects(database, user)).toBe(false);
  expect(await connects(database, 'mover')).toBe(true);
  const { markLsn } = await runActivity(f.steps.mark, [f.m]);
  await runActivity(f.steps.waitForDrain, [f.m, markLsn]);

  await runActivity(f.steps.unfence, [f.m]);
  expect(await rights(database)).toBe(before);
  expect(await connects(database, 'reader')).toBe(true);
  expect(await connects(database, "o'hara")).toBe(true);
  await runActivity(f.steps.unfence, [f.m]);
  expect(await rights(database)).toBe(before);
  await f.close();
}, 60_000);

test('raised twice, or booked and not raised, it puts back the rights that there were first, CREATE and TEMP untouched', async () => {
  const f = await fixture();
  const { database } = f.m;
  const all = async () => [
    await rights(database),
    await rights(database, 'CREATE'),
    await rights(database, 'TEMPORARY'),
  ];
  const before = await all();
  for (let time = 1; time <= 2; time += 1) await runActivity(f.steps.fence, [f.m, 'lock-out']);
  for (let time = 1; time <= 2; time += 1) await runActivity(f.steps.unfence, [f.m]);
  expect(await all()).toEqual(before);

  // Died after the booking: nothing was revoked yet.
  await runActivity(f.steps.fence, [f.m, 'lock-out']);
  const [{ message } = { message: '' }] = await f.target.query<{ message: string }>(
    `SELECT message FROM pgtransit.event WHERE step = 'fence'`,
  );
  await runActivity(f.steps.unfence, [f.m]);
  await f.target.query(`INSERT INTO pgtransit.event (step, warning, message) VALUES ('fence', false, $1)`, [message]);
  await runActivity(f.steps.unfence, [f.m]);
  expect(await all()).toEqual(before);

  // A stop with another fence comes after one that could not be lifted.
  await runActivity(f.steps.fence, [f.m, 'lock-out']);
  await runActivity(f.steps.fence, [f.m, 'read-only']);
  expect(await all()).toEqual(before);
  await runActivity(f.steps.unfence, [f.m]);
  await f.close();
}, 60_000);

test('whom it cannot keep out it names: a member of our role before anything is done, and who comes as our role', async () => {
  const f = await fixture();
  const { database } = f.m;
  const before = await rights(database);
  await server.psql('postgres', 'CREATE ROLE helper LOGIN; GRANT mover TO helper');
  await expect(runActivity(f.steps.fence, [f.m, 'lock-out'])).rejects.toMatchObject({
    type: 'PrivilegeMissing',
    message:
      'Role "helper" has all rights of "mover", as which the migration connects, so a lock-out cannot keep it out.',
  });
  expect(await rights(database)).toBe(before);
  await server.psql('postgres', 'DROP ROLE helper');

  let over = false;
  const comeAgain = async () => {
    while (!over) {
      const client = new pg.Client({ connectionString: server.uri(database, { user: 'mover' }) });
      client.on('error', () => undefined);
      await client.connect().catch(() => undefined);
      await client.query('SELECT pg_sleep(1)').catch(() => undefined);
      await client.end().catch(() => undefined);
    }
  };
  const stubborn = Promise.all([1, 2, 3, 4].map(comeAgain));
  await expect(runActivity(f.steps.fence, [f.m, 'lock-out'])).rejects.toMatchObject({
    type: 'FenceBroken',
    message: expect.stringMatching(/^Sessions of "mover" keep coming to database /) as string,
  });
  over = true;
  await stubborn;
  await runActivity(f.steps.unfence, [f.m]);
  expect(await rights(database)).toBe(before);
  await f.close();
}, 60_000);

test('a mark waits for what is under way, and what a superuser writes behind a fence is found, with its table', async () => {
  const f = await fixture();
  await f.stream();
  const admin: Session = await f.open('source', 'admin');
  await admin.query('BEGIN; INSERT INTO public.t DEFAULT VALUES');
  let marked = false;
  const mark = runActivity(f.steps.mark, [f.m]).then((answer) => {
    marked = true;
    return answer;
  });
  const asleep = () => f.target.query('SELECT pg_sleep(0.3)');
  await asleep();
  expect(marked).toBe(false);
  await admin.query('COMMIT');
  const { markLsn } = await mark;
  await runActivity(f.steps.waitForDrain, [f.m, markLsn]);
  await runActivity(f.steps.disableSubscriptions, [f.m]);
  expect(await runActivity(f.steps.walAfterMark, [f.m])).toEqual({ bytes: 0, tables: [] });
  await admin.query('INSERT INTO public.t DEFAULT VALUES');
  const after = await runActivity(f.steps.walAfterMark, [f.m]);
  expect(after.bytes).toBeGreaterThan(0);
  expect(after.tables).toEqual(['public.t']);
  await f.close();
}, 60_000);
