import pg from 'pg';
import { afterEach, expect, test } from 'vitest';
import { createReadinessActivities } from '../../activities/readiness.ts';
import { startPostgres } from '../../lab/postgres-server.ts';
import { LIMITS } from '../../src/domain/limits.ts';
import type { StreamSample } from '../../src/domain/readiness.ts';
import { eventually, runActivity } from '../support/copy-fixture.ts';
import { lockTable } from '../support/hold.ts';
import type { ReplicationFixture } from '../support/replication-fixture.ts';
import { replicationFixture } from '../support/replication-fixture.ts';

const closing: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

const SCHEMA = 'CREATE TABLE public.t (id int PRIMARY KEY, v text)';

/** On servers of its own: what is in the way here is in the way of a whole server. */
async function streaming(plan: object = {}): Promise<ReplicationFixture> {
  const [source, target] = await Promise.all([
    startPostgres({ major: 17, settings: { max_prepared_transactions: '5' } }),
    startPostgres({ major: 18, settings: { max_connections: '30' } }),
  ]);
  closing.push(source.remove, target.remove);
  const f = await replicationFixture({
    ...{ source, target, schema: SCHEMA, plan },
    rows: `INSERT INTO public.t SELECT g, 'x' FROM generate_series(1, 100) g`,
  });
  closing.push(f.close);
  await f.stream();
  return f;
}

async function look(f: ReplicationFixture, before: StreamSample | null = null) {
  const { conditions, sample } = await runActivity(createReadinessActivities(f.deps).readiness, [f.m, before]);
  const of = (name: string): string => {
    const found = conditions.find((condition) => condition.name === name);
    return `${found?.state ?? 'missing'}: ${found?.detail ?? ''} ${found?.next ?? ''}`;
  };
  return { of, sample };
}

test('a prepared transaction is a problem that names it, and one that is open for long names its session', async () => {
  const f = await streaming();
  await f.source.query(`BEGIN; UPDATE public.t SET v = 'p' WHERE id = 1`);
  await f.source.query(`PREPARE TRANSACTION 'left; over'`);
  const client = new pg.Client({ connectionString: f.from.uri(f.m.database), application_name: 'endless' });
  await client.connect();
  closing.push(() => client.end());
  await client.query('BEGIN; SELECT 1');
  const { longTransactionMs } = LIMITS;
  Object.assign(LIMITS, { longTransactionMs: 0 });
  closing.push(() => Promise.resolve(Object.assign(LIMITS, { longTransactionMs })));
  const { of } = await look(f);
  expect(of('prepared-transactions')).toMatch(/^problem: .*'left; over'.*COMMIT PREPARED 'left; over'; or ROLLBACK/);
  expect(of('long-transactions')).toMatch(/^problem: .*pid \d+ of "postgres" \(endless\).*pg_terminate_backend\(\d+\)/);
  await f.source.query(`ROLLBACK PREPARED 'left; over'`);
  await client.query('ROLLBACK');
  const after = await look(f);
  expect(after.of('prepared-transactions')).toMatch(/^ok/);
  expect(after.of('long-transactions')).toMatch(/^ok/);
}, 60_000);

test('a target that does not keep up is behind, and never catches up at its rate, until it does', async () => {
  const f = await streaming();
  const { sample } = await look(f);
  const lock = await lockTable(f.to, f.m.database, 'public.t');
  await f.source.query(`UPDATE public.t SET v = repeat('y', 2000)`);
  await lock.reached();
  await f.source.query(`UPDATE public.t SET v = repeat('z', 2000)`);
  // As if it were long ago, so that the rates are of both looks.
  const before = sample && { ...sample, atMs: Date.now() - 60_000 };
  const held = await look(f, before);
  expect(held.of('lag')).toMatch(/^problem: The target did not confirm within a second/);
  expect(held.of('apply-rate')).toMatch(/^problem: .*it will never catch up at this rate.*locks/);
  await lock.release();
  await eventually('the target to catch up', async () => (await look(f)).of('lag').startsWith('ok'));
}, 60_000);

test('a change that cannot be applied is told as new errors, and as old ones once it is mended', async () => {
  const f = await streaming();
  const { sample } = await look(f);
  await f.target.query(`INSERT INTO public.t VALUES (1000, 'in the way')`);
  await f.source.query(`INSERT INTO public.t VALUES (1000, 'x')`);
  await eventually('an apply error', async () => (await look(f, sample)).of('apply-errors').startsWith('problem'));
  expect((await look(f, sample)).of('apply-errors')).toMatch(/^problem: \d+ apply errors since the look before.*log/);
  await f.target.query('DELETE FROM public.t WHERE id = 1000');
  await eventually(
    'the row',
    async () => (await f.target.query(`SELECT FROM public.t WHERE id = 1000 AND v = 'x'`)).length === 1,
  );
  const mended = await look(f);
  expect((await look(f, mended.sample)).of('apply-errors')).toMatch(/^ok: None new; \d+ in all/);
}, 60_000);

test('a target that cannot reach the source any more does not stream', async () => {
  const f = await streaming();
  const [subscription] = await f.target.query<{ name: string; conninfo: string }>(
    'SELECT subname AS name, subconninfo AS conninfo FROM pg_subscription',
  );
  await f.target.query(`ALTER SUBSCRIPTION ${subscription?.name ?? ''} CONNECTION 'host=127.0.0.1 port=1 dbname=x'`);
  await f.source.query('SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active');
  await eventually('the stream to end', async () => (await look(f)).of('streaming').startsWith('problem'));
  expect((await look(f)).of('streaming')).toMatch(
    /^problem: (On the target an apply worker does not run|The target does not read from slot)/,
  );
}, 60_000);

test('a target without room for the sessions of the source says how much it needs', async () => {
  const f = await streaming();
  const clients = Array.from({ length: 30 }, () => new pg.Client({ connectionString: f.from.uri(f.m.database) }));
  closing.push(() => Promise.all(clients.map((client) => client.end())));
  for (const client of clients) await client.connect();
  expect((await look(f)).of('connections')).toMatch(
    /^problem: The source has 3\d sessions now .* the target has \d+ and room for \d+\. ALTER SYSTEM SET max_connections/,
  );
}, 60_000);

test('a fence that our role may not put up is a problem that says what it lacks', async () => {
  const f = await streaming({ stop: { fence: 'read-only' } });
  await f.source.query(`CREATE ROLE modest LOGIN; GRANT pg_monitor TO modest`);
  const deps = {
    ...f.deps,
    endpoint: (reference: string, server: 'source' | 'target') => {
      const endpoint = f.deps.endpoint(reference, server);
      return server === 'target' ? endpoint : { ...endpoint, info: { ...endpoint.info, user: 'modest' } };
    },
  };
  const { of } = await look({ ...f, deps });
  expect(of('fence')).toMatch(/^problem: .*(own|pg_signal_backend)/);
  expect((await look(f)).of('fence')).toMatch(/^ok/);
}, 60_000);

test('what cannot be seen in time is unknown, and the other conditions are as they are', async () => {
  const f = await streaming();
  const session = await f.open('target');
  await session.query('BEGIN; LOCK TABLE pgtransit.unit');
  const { of } = await look(f);
  await session.query('ROLLBACK');
  expect(of('copy-complete')).toMatch(/^unknown: This could not be seen\. .*(time|cancel)/);
  expect(of('streaming')).toMatch(/^ok/);
}, 60_000);
