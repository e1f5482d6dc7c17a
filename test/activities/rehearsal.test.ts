import { afterEach, expect, test } from 'vitest';
import { createRehearsalActivities } from '../../activities/rehearsal.ts';
import { eventually, runActivity } from '../support/copy-fixture.ts';
import { replicationFixture, startWriter } from '../support/replication-fixture.ts';

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

test('a rehearsal of what does not stream says so', async () => {
  const f = await replicationFixture({ schema: SCHEMA, rows: WRITE });
  closing.push(f.close);
  await f.stream();
  await runActivity(f.steps.disableSubscriptions, [f.m]);
  await expect(runActivity(createRehearsalActivities(f.deps).rehearseStop, [f.m])).rejects.toThrow(
    /cannot be rehearsed now/,
  );
});
