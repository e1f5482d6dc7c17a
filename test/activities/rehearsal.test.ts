import { afterEach, expect, test } from 'vitest';
import { createRehearsalActivities } from '../../activities/rehearsal.ts';
import { eventually, runActivity } from '../support/copy-fixture.ts';
import { replicationFixture, runInBackground, startWriter } from '../support/replication-fixture.ts';

const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

const SCHEMA = 'CREATE TABLE public.t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text)';
const WRITE = "INSERT INTO public.t (v) VALUES ('live')";

test('a rehearsal while the application writes tells each step and changes nothing', async () => {
  const f = await replicationFixture({ schema: SCHEMA, rows: WRITE, plan: { stop: { fence: 'read-only' } } });
  closing.push(f.close);
  await f.stream();
  const state = async () => ({
    target: await f.target.one('SELECT last_value::text FROM public.t_id_seq'),
    settings: await f.source.query(
      'SELECT * FROM pg_db_role_setting WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())',
    ),
    enabled: await f.target.query(
      'SELECT subenabled FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())',
    ),
    events: await f.target.query('SELECT step, message FROM pgtransit.event'),
    leftovers: await f.leftovers(),
  });
  const before = await state();
  const writer = startWriter(f.from.uri(f.m.database), WRITE, 200);
  closing.push(() => writer.stop());
  await eventually('writes', () => Promise.resolve(writer.written() > 50));

  const { steps, expectedDowntimeMs } = await runActivity(createRehearsalActivities(f.deps).rehearseStop, [f.m]);

  expect(steps.map(({ name, estimated }) => `${name}${estimated ? ' estimated' : ''}`)).toEqual([
    'waitForGate',
    'fence estimated',
    'mark',
    'waitForDrain',
    'disableSubscriptions estimated',
    'carryOver',
    'walAfterMark estimated',
  ]);
  const inDowntime = steps.filter(({ name }) => name !== 'waitForGate');
  expect(expectedDowntimeMs).toBe(inDowntime.reduce((sum, { ms }) => sum + ms, 0));
  expect(expectedDowntimeMs).toBeGreaterThan(0);
  expect(await state()).toEqual(before);
  const written = writer.written();
  await eventually('more writes', () => Promise.resolve(writer.written() > written));
});

test('it reckons with the comparison, but for what is known to be the same, with what is copied again, and with the way back', async () => {
  const f = await replicationFixture({
    schema: `${SCHEMA}; CREATE UNLOGGED TABLE public.light (v text); CREATE TABLE public.big (id int PRIMARY KEY, v text)`,
    rows: `INSERT INTO public.light VALUES ('x'); INSERT INTO public.big SELECT g, repeat('x', 500) FROM generate_series(1, 10000) g;
      SELECT lo_from_bytea(0, 'object')`,
    plan: { stop: { fence: 'external' }, verify: 'full', reverse: {} },
    // All tiny: no lane finishes tables here.
    sizes: { tinyTableBytes: 100_000_000, splitTableBytes: 100_000_000, chunkBytes: 100_000_000 },
  });
  closing.push(f.close);
  await f.stream();
  const rehearse = async (fence: string) => {
    const m = { ...f.m, plan: { ...f.m.plan, stop: { ...f.m.plan.stop, fence } } } as typeof f.m;
    const { steps } = await runActivity(createRehearsalActivities(f.deps).rehearseStop, [m]);
    const ms = (name: string) => steps.filter((step) => step.name === name && step.estimated).map((step) => step.ms);
    return { verify: ms('verifyFenced'), again: ms('carryOver'), reverse: ms('armReverse') };
  };
  const before = await rehearse('external');
  const comparing = runInBackground(f.steps.verifyStreaming, [f.m]);
  await eventually('the comparison', async () => {
    const parts = await f.target.query<{ equal: boolean }>(
      'SELECT equal IS NOT NULL AS equal FROM pgtransit.comparison',
    );
    return parts.length > 1 && parts.every(({ equal }) => equal);
  });
  comparing.cancel();
  await comparing.ended;
  await f.target.query(
    'UPDATE pgtransit.comparison SET seconds = 2 WHERE bytes = (SELECT max(bytes) FROM pgtransit.comparison)',
  );
  const after = await rehearse('external');
  const ended = await rehearse('read-only');
  expect(before.verify[0]).toBeGreaterThan(20);
  expect(after.verify[0]).toBeGreaterThanOrEqual(1000);
  expect(ended.verify[0]).toBe(0);
  expect(ended.again[0]).toBeLessThan(after.again[0] ?? 0);
  expect(ended.reverse[0]).toBeGreaterThanOrEqual(100);
});

test('a rehearsal of what does not stream says so', async () => {
  const f = await replicationFixture({ schema: SCHEMA, rows: WRITE });
  closing.push(f.close);
  await f.stream();
  await runActivity(f.steps.disableSubscriptions, [f.m]);
  await expect(runActivity(createRehearsalActivities(f.deps).rehearseStop, [f.m])).rejects.toThrow(
    /cannot be rehearsed now/,
  );
});
