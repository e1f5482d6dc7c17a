import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { PostgresServer } from '../../lab/postgres-server.ts';
import { startPostgres } from '../../lab/postgres-server.ts';
import { applicationName } from '../../src/contract.ts';
import { countRows, eventually, runActivity } from '../support/copy-fixture.ts';
import type { ReplicationFixture, ReplicationOptions } from '../support/replication-fixture.ts';
import { replicationFixture } from '../support/replication-fixture.ts';
import { startTraffic } from '../support/traffic.ts';

const REASON = 'it was taken away';
const WIDE = '"The wide"';

const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

/** One without anything to store out of line, one with it and all columns as its identity, one that cannot be cut. */
const SCHEMA = `
  CREATE TABLE public.narrow ("the key" bigint, part int, v int NOT NULL, PRIMARY KEY ("the key", part));
  CREATE TABLE public.${WIDE} (id int PRIMARY KEY, v int NOT NULL, big text);
  ALTER TABLE public.${WIDE} ALTER COLUMN big SET STORAGE EXTERNAL;
  ALTER TABLE public.${WIDE} REPLICA IDENTITY FULL;
  CREATE TABLE public.uncut (id int PRIMARY KEY, v int NOT NULL, big text)`;

const ROWS = `
  INSERT INTO public.narrow SELECT 2 * g, g % 3, 0 FROM generate_series(1, 4000) g;
  INSERT INTO public.${WIDE} SELECT 2 * g, 0, repeat(md5(g::text), 100) FROM generate_series(1, 300) g;
  INSERT INTO public.uncut SELECT g, 0, repeat('x', 100) FROM generate_series(1, 2000) g`;

/** Rows move to keys anywhere, those at the bounds go away and come back, and all change where they are. */
const WRITES = [
  `UPDATE public.narrow SET "the key" = k.fresh, v = v + 1 FROM (SELECT floor(random() * 9000)::int AS fresh) k
    WHERE "the key" = (SELECT "the key" FROM public.narrow WHERE "the key" >= floor(random() * 8000) ORDER BY 1 LIMIT 1)
      AND NOT EXISTS (SELECT FROM public.narrow WHERE "the key" = k.fresh)`,
  `UPDATE public.${WIDE} SET id = k.fresh FROM (SELECT floor(random() * 700)::int AS fresh) k
    WHERE id = (SELECT id FROM public.${WIDE} WHERE id >= floor(random() * 600) ORDER BY 1 LIMIT 1)
      AND NOT EXISTS (SELECT FROM public.${WIDE} WHERE id = k.fresh)`,
  `UPDATE public.narrow SET v = v + 1 WHERE "the key" IN (SELECT floor(random() * 8000)::int FROM generate_series(1, 5))`,
  `UPDATE public.${WIDE} SET v = v + 1 WHERE id BETWEEN 100 AND 110`,
  `DELETE FROM public.narrow WHERE "the key" % 100 = floor(random() * 100)`,
  `INSERT INTO public.narrow SELECT floor(random() * 8000)::int, 9, 1 ON CONFLICT DO NOTHING`,
  `DELETE FROM public.${WIDE} WHERE id = (SELECT max(id) FROM public.${WIDE})`,
  `INSERT INTO public.${WIDE} SELECT floor(random() * 700)::int, 1, repeat(md5(random()::text), 100) ON CONFLICT DO NOTHING`,
  `UPDATE public.uncut SET v = v + 1 WHERE id % 50 = floor(random() * 50)`,
];

const SIZES = { tinyTableBytes: 0, splitTableBytes: 10_000_000, chunkBytes: 10_000_000 };

async function begin(options: ReplicationOptions = {}): Promise<ReplicationFixture> {
  const plan = { snapshot: { rangeBytes: 40_000 } };
  const f = await replicationFixture({ schema: SCHEMA, rows: ROWS, sizes: SIZES, plan, ...options });
  closing.push(f.close);
  return f;
}

const ranges = (f: ReplicationFixture) =>
  f.target.query<{ name: string; number: number; condition: string; publication: string; generation: number }>(
    `SELECT name, number, k.condition, publication, k.generation
       FROM pgtransit.key_range k JOIN pgtransit.relation r ON r.oid = k.relation ORDER BY 1, 2`,
  );

/** Copies what `held`, a condition on units, does not hold back; then the snapshot is lost. */
async function copyHalf(f: ReplicationFixture, generation: number, held: string) {
  await runActivity(f.steps.openSnapshot, [f.m, generation]);
  await runActivity(f.steps.planCopy, [f.m, generation]);
  const holder = await f.open('target');
  await holder.query('BEGIN');
  const kept = await holder.query(
    `SELECT FROM pgtransit.unit WHERE kind = 'copy' AND state = 'todo' AND ${held} FOR UPDATE`,
  );
  const lane = runActivity(f.steps.copyTables, [f.m, generation, 0]).catch(() => undefined);
  await eventually('only what is held', async () => {
    const left = await f.target.query(`SELECT FROM pgtransit.unit WHERE kind = 'copy' AND state = 'todo'`);
    return left.length === kept.length;
  });
  // Also one that had nothing to copy, and may be just coming.
  await eventually('the lane', async () => {
    const ended = await f.target.query(
      'SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1',
      [applicationName(f.m.id, 'copy')],
    );
    return ended.length > 0;
  });
  await lane;
  await holder.query('ROLLBACK');
  return runActivity(f.steps.closeGeneration, [f.m, generation, REASON]);
}

/** The rest under the next snapshot, subscribed to and caught up. */
async function streamRest(f: ReplicationFixture, generation: number): Promise<void> {
  const { steps, m } = f;
  await runActivity(steps.openSnapshot, [m, generation]);
  await runActivity(steps.planCopy, [m, generation]);
  await runActivity(steps.copyTables, [m, generation, 0]);
  // No lane builds here: these tables have no indexes to build.
  await f.target.query(`UPDATE pgtransit.unit SET state = 'done' WHERE kind = 'key'`);
  await runActivity(steps.sealCopy, [m, generation]);
  await runActivity(steps.keepSnapshot, [m, generation]);
  await runActivity(steps.createSubscription, [m]);
  await runActivity(steps.waitForCatchUp, [m]);
}

async function expectEqual(f: ReplicationFixture): Promise<void> {
  const { markLsn } = await runActivity(f.steps.mark, [f.m]);
  await runActivity(f.steps.waitForDrain, [f.m, markLsn]);
  for (const table of ['narrow', WIDE, 'uncut']) {
    const sql = `SELECT count(*)::text AS rows, sum(hashtextextended(t::text, 0))::text AS sum FROM public.${table} t`;
    expect(await f.target.query(sql), table).toEqual(await f.source.query(sql));
  }
  await runActivity(f.steps.disableSubscriptions, [f.m]);
  expect(await runActivity(f.steps.walAfterMark, [f.m])).toEqual({ bytes: 0, tables: [] });
  await runActivity(f.steps.dropReplication, [f.m]);
  expect((await f.leftovers()).filter((name) => name !== 'schema')).toEqual([]);
}

describe.each([
  [15, 17],
  [18, 18],
])('a table that is copied in ranges of its key, from %i to %i', (from, to) => {
  let second: PostgresServer | undefined;
  beforeAll(async () => {
    if (from === to) second = await startPostgres({ major: to });
  });
  afterAll(() => second?.remove());
  const servers = (): ReplicationOptions => ({ source: from, target: second ?? to });

  test('keeps its finished ranges when snapshots are lost, whatever rows move between them', async () => {
    const f = await begin(servers());
    const traffic = startTraffic(f.from.uri(f.m.database), 300, WRITES);
    closing.push(() => traffic.stop());
    expect(await copyHalf(f, 0, `(key_range % 3 > 0 OR label LIKE '%uncut%')`)).toMatchObject({ finished: 0, left: 3 });
    const cut = await ranges(f);
    expect(new Set(cut.map(({ name }) => name))).toEqual(new Set(['narrow', 'The wide']));
    expect(new Set(cut.map(({ generation }) => generation))).toEqual(new Set([0, 1]));
    // One that finishes nothing, and whose slot goes, in between.
    expect(await copyHalf(f, 1, 'true')).toMatchObject({
      finished: 0,
      ranges: cut.filter((k) => k.number % 3 === 0).length,
    });
    expect(await copyHalf(f, 2, 'key_range % 3 = 2')).toMatchObject({ finished: 1, left: 2 });
    await streamRest(f, 3);
    expect(new Set((await ranges(f)).map(({ generation }) => generation))).toEqual(new Set([0, 2, 3]));
    const before = traffic.committed();
    await eventually('writes to what streams', () => Promise.resolve(traffic.committed() > before + 300));
    await runActivity(f.steps.waitForCatchUp, [f.m]);
    await traffic.stop();
    await expectEqual(f);
  });
});

describe('a table that is copied in ranges of its key', () => {
  test('is as any other where no snapshot is lost: TRUNCATE is applied', async () => {
    const f = await begin();
    await runActivity(f.steps.openSnapshot, [f.m, 0]);
    await f.source.query('TRUNCATE public.narrow; INSERT INTO public.narrow VALUES (7, 7, 7)');
    expect(await runActivity(f.steps.closeGeneration, [f.m, 0, REASON])).toMatchObject({ sealed: false });
    await streamRest(f, 1);
    await f.source.query(`TRUNCATE public.${WIDE}; INSERT INTO public.${WIDE} VALUES (1, 1, 'after')`);
    await expectEqual(f);
    expect(await countRows(f.target, `public.${WIDE}`)).toBe(1);
  });

  test('begins anew when it was truncated between two generations', async () => {
    const f = await begin();
    await copyHalf(f, 0, `key_range % 2 = 1`);
    await f.source.query(
      'TRUNCATE public.narrow; INSERT INTO public.narrow SELECT g, 1, 1 FROM generate_series(1, 50) g',
    );
    await streamRest(f, 1);
    const narrow = (await ranges(f)).filter(({ name }) => name === 'narrow');
    expect(new Set(narrow.map(({ generation }) => generation))).toEqual(new Set([1]));
    await expectEqual(f);
    expect(await countRows(f.target, 'public.narrow')).toBe(50);
  });

  test('stops its streams at a TRUNCATE that they cannot bring in order, and says so', async () => {
    const f = await begin();
    await copyHalf(f, 0, `key_range % 2 = 1`);
    await streamRest(f, 1);
    const rows = await countRows(f.target, 'public.narrow');
    await f.source.query('TRUNCATE public.narrow');
    await expect(runActivity(f.steps.waitForGate, [f.m, 0])).rejects.toMatchObject({
      type: 'ApplyFailed',
      message: expect.stringMatching(
        /cannot apply a change of public\.narrow .*: TRUNCATE: table public\.narrow was truncated on the source/,
      ) as string,
    });
    expect(await countRows(f.target, 'public.narrow')).toBe(rows);
  });

  test('is a failure once a range has left its publication, or values out of line are not logged any more', async () => {
    const f = await begin();
    await copyHalf(f, 0, `key_range % 2 = 1`);
    await streamRest(f, 1);
    await runActivity(f.steps.waitForGate, [f.m, 0]);
    await f.source.query(`ALTER TABLE public.${WIDE} REPLICA IDENTITY DEFAULT`);
    await expect(runActivity(f.steps.waitForGate, [f.m, 0])).rejects.toMatchObject({
      type: 'SlotLost',
      message: expect.stringContaining('is not FULL any more') as string,
    });
    await f.source.query(`ALTER TABLE public.${WIDE} REPLICA IDENTITY FULL`);
    const [first] = await ranges(f);
    await f.source.query(`DROP PUBLICATION ${first?.publication ?? ''}`);
    await expect(runActivity(f.steps.waitForGate, [f.m, 0])).rejects.toMatchObject({
      type: 'SlotLost',
      message: expect.stringContaining(`was taken out of publication ${first?.publication ?? ''}`) as string,
    });
  });

  test('is copied anew where the slot of its finished ranges is gone', async () => {
    const f = await begin();
    await copyHalf(f, 0, `key_range % 2 = 1`);
    await f.source.query('SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1', [
      `pgtransit_${f.m.id}_g0`,
    ]);
    expect(await copyHalf(f, 1, 'true')).toMatchObject({ finished: 0, left: 3, ranges: 0 });
    await streamRest(f, 2);
    expect(new Set((await ranges(f)).map(({ generation }) => generation))).toEqual(new Set([2]));
    await expectEqual(f);
  });
});
