import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { PostgresServer } from '../../lab/postgres-server.ts';
import { reverseName } from '../../src/contract.ts';
import type { Session } from '../../src/postgres/connection.ts';
import { startPostgres } from '../../lab/postgres-server.ts';
import { countRows, eventually, runActivity } from '../support/copy-fixture.ts';
import type { ReplicationFixture, ReplicationOptions } from '../support/replication-fixture.ts';
import { replicationFixture, runInBackground, startWriter } from '../support/replication-fixture.ts';

const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

const SCHEMA = `
  CREATE SCHEMA "of the shop";
  CREATE TABLE "of the shop"."Order ""s" (id serial PRIMARY KEY, "the value" text, big text);
  CREATE TABLE public.part (id int, day int, PRIMARY KEY (id, day)) PARTITION BY LIST (day);
  CREATE TABLE public.part_1 PARTITION OF public.part FOR VALUES IN (1);
  CREATE TABLE public.part_2 PARTITION OF public.part FOR VALUES IN (2);
  CREATE TABLE public.whole (a int, b text);
  ALTER TABLE public.whole REPLICA IDENTITY FULL;
  CREATE SEQUENCE public.lonely`;
const ORDERS = '"of the shop"."Order ""s"';

/** Streamed, then cut over by the steps of a stop: the target has everything, and its source follows. */
async function cutOver(options: ReplicationOptions = {}): Promise<ReplicationFixture> {
  const f = await replicationFixture({
    schema: SCHEMA,
    rows: `INSERT INTO ${ORDERS} ("the value") SELECT 'row ' || n FROM generate_series(1, 100) n; INSERT INTO public.part SELECT n, 1 + n % 2 FROM generate_series(1, 100) n`,
    plan: { reverse: {} },
    ...options,
  });
  closing.push(f.close);
  await f.stream();
  await f.source.query(
    `INSERT INTO ${ORDERS} ("the value") VALUES ('before the cutover'); SELECT setval('public.lonely', 40)`,
  );
  await runActivity(f.steps.fence, [f.m, 'read-only']);
  const { markLsn } = await runActivity(f.steps.mark, [f.m]);
  await runActivity(f.steps.waitForDrain, [f.m, markLsn]);
  await runActivity(f.steps.disableSubscriptions, [f.m]);
  await runActivity(f.steps.carryOver, [f.m, null]);
  // The fence has ended this one.
  return { ...f, source: await f.open('source') };
}

/** Of the stream back, on either server. */
async function reverseObjects({ m, source, target }: ReplicationFixture): Promise<unknown[]> {
  const of = (session: Session) =>
    session.query(
      `SELECT 'subscription' FROM pg_subscription WHERE subname = $1
       UNION ALL SELECT 'slot' FROM pg_replication_slots WHERE slot_name = $1
       UNION ALL SELECT 'publication' FROM pg_publication WHERE pubname = $1`,
      [reverseName(m.id)],
    );
  return [...(await of(source)), ...(await of(target))];
}

const rowsOf = async (session: Session): Promise<unknown[]> => [
  await session.query(`SELECT * FROM ${ORDERS} ORDER BY id`),
  await session.query('SELECT tableoid::regclass::text, * FROM public.part ORDER BY 2, 3'),
  await session.query('SELECT * FROM public.whole ORDER BY a, b'),
];

const isSame = async (f: ReplicationFixture): Promise<boolean> =>
  JSON.stringify(await rowsOf(f.source)) === JSON.stringify(await rowsOf(f.target));

describe.each([
  [15, 17],
  [18, 18],
])('a source of %i that follows its target of %i', (major, target) => {
  let source: PostgresServer | number = major;
  beforeAll(async () => {
    if (major === target) source = await startPostgres({ major });
  });
  afterAll(() => (typeof source === 'number' ? undefined : source.remove()));

  test('gets every kind of change though it is read-only to others, and nothing of the way there comes back', async () => {
    const f = await cutOver({ source, target });
    for (let time = 1; time <= 2; time += 1) await runActivity(f.steps.armReverse, [f.m]);
    await runActivity(f.steps.dropReplication, [f.m]);
    await f.target.query(`
      INSERT INTO ${ORDERS} ("the value", big) SELECT 'new ' || n, repeat(md5(n::text), 300) FROM generate_series(1, 50) n;
      UPDATE ${ORDERS} SET "the value" = 'changed' WHERE id % 7 = 0; DELETE FROM ${ORDERS} WHERE id % 11 = 0;
      UPDATE ${ORDERS} SET id = id + 10000 WHERE id = 5;
      UPDATE public.part SET day = 2 WHERE id = 2; INSERT INTO public.part VALUES (1000, 1);
      INSERT INTO public.whole VALUES (1, 'a'), (1, 'a'), (2, NULL); DELETE FROM public.whole WHERE a = 2`);
    await eventually('the same rows', () => isSame(f));
    await f.target.query(`TRUNCATE public.whole; INSERT INTO public.whole VALUES (3, 'c')`);
    await eventually('the same rows', () => isSame(f));
    const measured = await runActivity(f.steps.measureReverse, [f.m]);
    expect(measured).toMatchObject({ problem: null, retainedBytes: expect.any(Number) as number });

    for (let time = 1; time <= 2; time += 1) await runActivity(f.steps.dropReverse, [f.m]);
    expect(await reverseObjects(f)).toEqual([]);
  }, 60_000);

  test('is gone back to with what was written to the target until its fence, sequences too', async () => {
    const f = await cutOver({ source, target });
    await runActivity(f.steps.armReverse, [f.m]);
    await runActivity(f.steps.dropReplication, [f.m]);
    const writer = startWriter(
      f.to.uri(f.m.database),
      `INSERT INTO ${ORDERS} ("the value") VALUES (nextval('public.lonely'))`,
      200,
    );
    const ended = writer.stopped.catch(() => undefined);
    await eventually('writes', () => Promise.resolve(writer.written() > 50));
    for (let time = 1; time <= 2; time += 1) await runActivity(f.steps.fenceTarget, [f.m]);
    await ended;
    await runActivity(f.steps.drainBack, [f.m]);
    for (let time = 1; time <= 2; time += 1)
      expect(await runActivity(f.steps.closeBack, [f.m])).toEqual({ bytes: 0, tables: [] });
    await runActivity(f.steps.unfence, [f.m]);

    const back = await f.open('source');
    const front = await f.open('target');
    expect(await countRows(back, ORDERS)).toBe(await countRows(front, ORDERS));
    const { last } = await front.one<{ last: number }>('SELECT last_value::float8 AS last FROM public.lonely');
    expect(last).toBeGreaterThan(90);
    expect(await back.one(`SELECT nextval('public.lonely')::float8 AS next`)).toEqual({ next: last + 1 });
    await back.query(`INSERT INTO ${ORDERS} ("the value") VALUES ('back again')`);
    await expect(
      startWriter(f.to.uri(f.m.database), `INSERT INTO ${ORDERS} VALUES (0)`, 1).stopped,
    ).rejects.toMatchObject({
      code: '25006',
    });
    await runActivity(f.steps.unfenceTarget, [f.m]);
  }, 60_000);
});

test('a rollback that is put back goes on following, and what comes around its fence is found', async () => {
  const f = await cutOver();
  await runActivity(f.steps.armReverse, [f.m]);
  await runActivity(f.steps.fenceTarget, [f.m]);
  await runActivity(f.steps.drainBack, [f.m]);
  // The fence has ended this one.
  const around = await f.open('target');
  const sides = { ...f, target: around };
  await around.query(`INSERT INTO ${ORDERS} ("the value") VALUES ('around')`);
  await eventually('it there', () => isSame(sides));
  expect(await runActivity(f.steps.closeBack, [f.m])).toMatchObject({ bytes: 0 });
  await around.query(`INSERT INTO ${ORDERS} ("the value") VALUES ('too late')`);
  const after = await runActivity(f.steps.closeBack, [f.m]);
  expect(after.bytes).toBeGreaterThan(0);
  expect(after.tables).toEqual(['"of the shop"."Order ""s"']);
  await runActivity(f.steps.enableReverse, [f.m]);
  await runActivity(f.steps.unfenceTarget, [f.m]);
  await eventually('the rest', () => isSame(sides));
}, 60_000);

test('whoever watches says what is in the way of following, and undoing takes away both directions', async () => {
  const f = await cutOver();
  await runActivity(f.steps.armReverse, [f.m]);
  await runActivity(f.steps.unfence, [f.m]);
  const watching = runInBackground(f.steps.watchReverse, [f.m]);
  const late = await f.open('source');
  await late.query(`INSERT INTO ${ORDERS} (id, "the value") VALUES (777, 'only here')`);
  await f.target.query(`INSERT INTO ${ORDERS} (id, "the value") VALUES (777, 'there too')`);
  expect(await watching.ended).toMatchObject({
    type: 'ReverseFailed',
    message: expect.stringMatching(
      /^The source cannot apply a change of "of the shop"\."Order ""s" .*Key \(id\)=\(777\) already exists/,
    ) as string,
  });
  await late.query(`DELETE FROM ${ORDERS} WHERE id = 777`);
  await eventually('it applied', () => isSame(f));
  await late.query(`ALTER SUBSCRIPTION "${reverseName(f.m.id)}" DISABLE`);
  await expect(runActivity(f.steps.watchReverse, [f.m])).rejects.toMatchObject({
    message: expect.stringContaining('is disabled on the source') as string,
  });
  await runActivity(f.steps.undo, [f.m]);
  expect(await reverseObjects(f)).toEqual([]);
}, 90_000);

test('a source that is gone leaves no slot behind on the target', async () => {
  const f = await cutOver();
  await runActivity(f.steps.armReverse, [f.m]);
  const { source } = f.endpoints;
  Object.assign(f.endpoints, { source: { ...source, info: { ...source.info, port: '1' } } });
  await expect(runActivity(f.steps.clearAway, [f.m])).rejects.toMatchObject({ type: 'ConnectionFailed' });
  expect(await reverseObjects(f)).toEqual([{ '?column?': 'subscription' }]);
  Object.assign(f.endpoints, { source });
  await runActivity(f.steps.clearAway, [f.m]);
  expect(await reverseObjects(f)).toEqual([]);
});
