import pg from 'pg';
import { afterEach, expect, test } from 'vitest';
import { startPgbouncer } from '../../lab/pgbouncer.ts';
import { startPostgres } from '../../lab/postgres-server.ts';
import { countRows, eventually, runActivity } from '../support/copy-fixture.ts';
import type { ReplicationFixture } from '../support/replication-fixture.ts';
import { replicationFixture, startWriter } from '../support/replication-fixture.ts';

const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

const PLAN = { stop: { fence: 'pgbouncer', pgbouncer: 'env:PGBOUNCER' } };

const at = (uri: string, database: string): string => {
  const { hostname, port } = new URL(uri);
  return `host=${hostname} port=${port} dbname=${database} user=postgres`;
};

/** A source that clients reach through a PgBouncer, where its database has another name. */
async function fixture() {
  const source = await startPostgres({ major: 17 });
  closing.push(source.remove);
  const bouncer = await startPgbouncer({});
  closing.push(bouncer.remove);
  const f: ReplicationFixture = await replicationFixture({
    ...{ source, plan: PLAN, pgbouncer: bouncer.uri('pgbouncer') },
    schema: 'CREATE TABLE public.t (id serial PRIMARY KEY)',
  });
  closing.push(f.close);
  await bouncer.configure({ shop: at(f.from.uri(), f.m.database), other: at(f.from.uri(), 'postgres') });
  return { f, bouncer };
}

const write = (uri: string) => startWriter(uri, 'INSERT INTO public.t DEFAULT VALUES', 100);

test('clients are held while PgBouncer is paused, lose no connection, and go on after, or on the target when it leads there', async () => {
  const { f, bouncer } = await fixture();
  await f.stream();
  const writer = write(bouncer.uri('shop'));
  await eventually('writes', () => Promise.resolve(writer.written() > 10));

  for (let time = 1; time <= 2; time += 1) await runActivity(f.steps.fence, [f.m, 'pgbouncer']);
  const { markLsn } = await runActivity(f.steps.mark, [f.m]);
  const held = writer.written();
  await runActivity(f.steps.waitForDrain, [f.m, markLsn]);
  expect(await countRows(f.target, 'public.t')).toBe(held);
  for (let time = 1; time <= 2; time += 1) await runActivity(f.steps.unfence, [f.m]);
  await eventually('writes again', () => Promise.resolve(writer.written() > held + 3));

  await runActivity(f.steps.fence, [f.m, 'pgbouncer']);
  const { markLsn: end } = await runActivity(f.steps.mark, [f.m]);
  await runActivity(f.steps.waitForDrain, [f.m, end]);
  await runActivity(f.steps.disableSubscriptions, [f.m]);
  await runActivity(f.steps.carryOver, [f.m, null]);
  const moved = writer.written();
  expect(await runActivity(f.steps.walAfterMark, [f.m])).toEqual({ bytes: 0, tables: [] });
  await expect(runActivity(f.steps.resumeClients, [f.m])).rejects.toMatchObject({
    type: 'NotSwitched',
    message: expect.stringMatching(/^PgBouncer still leads to the source: shop → /) as string,
  });
  await bouncer.configure({ shop: at(f.to.uri(), f.m.database) });
  for (let time = 1; time <= 2; time += 1) await runActivity(f.steps.resumeClients, [f.m]);
  await eventually('writes on the target', () => Promise.resolve(writer.written() > moved + 10));
  await writer.stop();
  expect(await countRows(f.target, 'public.t')).toBe(writer.written());
  expect(await countRows(f.source, 'public.t')).toBe(moved);
}, 60_000);

test('it waits for a transaction of a client, and who comes around PgBouncer is named', async () => {
  const { f, bouncer } = await fixture();
  const client = new pg.Client({ connectionString: bouncer.uri('shop') });
  await client.connect();
  closing.push(() => client.end());
  await client.query('BEGIN; INSERT INTO public.t DEFAULT VALUES');
  let up = false;
  const fencing = runActivity(f.steps.fence, [f.m, 'pgbouncer']).then(() => (up = true));
  await f.source.query('SELECT pg_sleep(0.3)');
  expect(up).toBe(false);
  await client.query('COMMIT');
  await fencing;
  const warnings = await f.target.query<{ message: string }>('SELECT message FROM pgtransit.event WHERE warning');
  expect(warnings.map(({ message }) => message)).toEqual([
    expect.stringMatching(
      /^The fence did not reach sessions that do not come through PgBouncer: pid \d+ of postgres \(test\)\./,
    ),
  ]);
  await runActivity(f.steps.unfence, [f.m]);
}, 60_000);

test('a PgBouncer that does not know the database is refused with what it knows', async () => {
  const { f, bouncer } = await fixture();
  await bouncer.configure({ other: at(f.from.uri(), 'postgres') });
  await expect(runActivity(f.steps.fence, [f.m, 'pgbouncer'])).rejects.toMatchObject({
    type: 'FenceFailed',
    message: expect.stringMatching(
      /^PgBouncer has no database that is ".*" on its server, only other \(postgres at /,
    ) as string,
  });
  await runActivity(f.steps.unfence, [f.m]);
}, 60_000);
