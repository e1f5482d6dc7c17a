import { afterEach, expect, test } from 'vitest';
import type { Session } from '../../src/postgres/connection.ts';
import { startPostgres } from '../../lab/postgres-server.ts';
import { eventually, runActivity } from '../support/copy-fixture.ts';
import type { ReplicationFixture, ReplicationOptions } from '../support/replication-fixture.ts';
import { replicationFixture, startWriter } from '../support/replication-fixture.ts';

const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

async function fixture(options: ReplicationOptions = {}): Promise<ReplicationFixture> {
  const made = await replicationFixture({ schema: 'CREATE TABLE public.t (id serial PRIMARY KEY)', ...options });
  closing.push(made.close);
  return made;
}

const settings = async (session: Session): Promise<string[]> =>
  (
    await session.query<{ setting: string }>(
      `SELECT unnest(s.setconfig) AS setting FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
        WHERE d.datname = current_database() AND s.setrole = 0`,
    )
  ).map(({ setting }) => setting);

test('a fence ends the writers, lets none in, and putting it back lets them in again', async () => {
  const f = await fixture();
  const write = () => startWriter(f.from.uri(f.m.database), 'INSERT INTO public.t DEFAULT VALUES', 50);
  const writers = [1, 2, 3].map(write);
  await eventually('writes', () => Promise.resolve(writers.every((writer) => writer.written() > 3)));
  const ended = writers.map((writer) =>
    writer.stopped.then(
      () => 'stopped',
      () => 'ended',
    ),
  );
  await runActivity(f.steps.fence, [f.m, 'read-only']);
  expect(await Promise.all(ended)).toEqual(['ended', 'ended', 'ended']);
  await expect(write().stopped).rejects.toMatchObject({ code: '25006' });
  await runActivity(f.steps.unfence, [f.m]);
  const again = write();
  await eventually('writes again', () => Promise.resolve(again.written() > 3));
  await again.stop();
});

test.each([
  ['off', ['default_transaction_read_only=off']],
  ['on', ['default_transaction_read_only=on']],
  [null, []],
])('fenced twice and put back twice, the setting that was there (%s) is there again', async (value, expected) => {
  const f = await fixture();
  if (value !== null)
    await f.source.query(`ALTER DATABASE "${f.m.database}" SET default_transaction_read_only = ${value}`);
  for (let time = 1; time <= 2; time += 1) await runActivity(f.steps.fence, [f.m, 'read-only']);
  const later = await f.open('source');
  expect(await settings(later)).toEqual(['default_transaction_read_only=on']);
  for (let time = 1; time <= 2; time += 1) await runActivity(f.steps.unfence, [f.m]);
  expect(await settings(later)).toEqual(expected);
});

test('a fence whose ledger is gone is not lifted by guessing: it says so', async () => {
  const f = await fixture();
  await runActivity(f.steps.fence, [f.m, 'read-only']);
  await f.target.query('DROP SCHEMA pgtransit CASCADE');
  await expect(runActivity(f.steps.unfence, [f.m])).rejects.toMatchObject({ type: 'AnotherMigration' });
});

test('a fence of a role that is no superuser ends whom it may, and says what it lacks and whom it may not', async () => {
  const server = await startPostgres({ major: 17 });
  closing.push(server.remove);
  await server.psql('postgres', 'CREATE ROLE mover LOGIN REPLICATION; CREATE ROLE app LOGIN');
  const f = await replicationFixture({
    source: server,
    sourceUri: (database) => server.uri(database, { user: 'mover' }),
  });
  closing.push(f.close);
  await f.source.query(`ALTER DATABASE "${f.m.database}" OWNER TO mover; GRANT CREATE, USAGE ON SCHEMA public TO app`);
  const writer = startWriter(server.uri(f.m.database, { user: 'app' }), 'SELECT 1', 20);
  await eventually('the app', () => Promise.resolve(writer.written() > 3));
  const ended = writer.stopped.then(
    () => 'stopped',
    () => 'ended',
  );

  const fence = () => runActivity(f.steps.fence, [f.m, 'read-only']);
  await expect(fence()).rejects.toThrow(/may not see when other sessions began/);
  await server.psql('postgres', 'GRANT pg_read_all_stats TO mover');
  await expect(fence()).rejects.toThrow(/may not end the sessions of others/);
  expect(await settings(f.source)).toEqual([]);

  await server.psql('postgres', 'GRANT pg_signal_backend TO mover');
  await fence();
  expect(await ended).toBe('ended');
  const { pid } = await f.source.one<{ pid: number }>('SELECT pg_backend_pid() AS pid');
  const warnings = await f.target.query<{ message: string }>('SELECT message FROM pgtransit.event WHERE warning');
  expect(warnings.map(({ message }) => message)).toEqual([
    `The fence could not end the sessions of superusers: pid ${pid} of postgres (test). What they write after the mark stops the cutover.`,
  ]);
}, 60_000);
