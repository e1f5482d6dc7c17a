import { afterEach, describe, expect, test } from 'vitest';
import { createReadinessActivities } from '../../activities/readiness.ts';
import { runActivity } from '../support/copy-fixture.ts';
import type { ReplicationFixture } from '../support/replication-fixture.ts';
import { replicationFixture, runInBackground } from '../support/replication-fixture.ts';
import type { Traffic } from '../support/traffic.ts';
import { startTraffic } from '../support/traffic.ts';
import { eventually } from '../support/workflow-harness.ts';

const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

const SCHEMA = `
  CREATE TABLE public.large (id int PRIMARY KEY, v int NOT NULL, f float8, filler text);
  CREATE TABLE public."Named, oddly" ("the 'key'" text, part int, v text, PRIMARY KEY (part, "the 'key'"));
  CREATE TABLE public.keyless (a int, b text);
  ALTER TABLE public.keyless REPLICA IDENTITY FULL;
  CREATE TABLE public.queue (id int PRIMARY KEY, v int);
  CREATE TABLE public.day (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
  CREATE TABLE public.day_1 PARTITION OF public.day FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')`;

const ROWS = `
  INSERT INTO public.large SELECT g, 0, g / 3.0, repeat('x', 40) FROM generate_series(1, 20000) g;
  INSERT INTO public."Named, oddly" SELECT 'key ' || g, g % 3, 'v' FROM generate_series(1, 300) g;
  INSERT INTO public.keyless SELECT g % 5, 'same' FROM generate_series(1, 50) g;
  INSERT INTO public.queue VALUES (1, 0);
  INSERT INTO public.day SELECT g, '2026-01-05' FROM generate_series(1, 100) g`;

/** Rows that change all the time, go away and come back, and move to other keys, acknowledged before they are flushed. */
const WRITES = [
  `SET synchronous_commit = off; UPDATE public.large SET v = v + 1 WHERE id IN (7, 12000)`,
  `DELETE FROM public.queue WHERE id = 1`,
  `INSERT INTO public.queue VALUES (1, 1)`,
  `UPDATE public."Named, oddly" SET v = v || '.' WHERE part = 1`,
  // Below the rows that tests spoil: one that moves on to a part that was looked at already is left to the fence.
  `UPDATE public.large SET id = -id WHERE id = 1 + floor(random() * 12000)::int`,
  `DELETE FROM public.keyless WHERE ctid = (SELECT min(ctid) FROM public.keyless WHERE a = 3)`,
  `INSERT INTO public.keyless VALUES (3, 'same')`,
  `UPDATE public.day SET id = id + 1000 WHERE id = 1 + floor(random() * 100)::int`,
];

/** All tiny: no lane finishes tables here. */
const SIZES = { tinyTableBytes: 10_000_000, splitTableBytes: 100_000_000, chunkBytes: 100_000_000 };
const PARTS = { comparedBytes: 500_000, comparedWholeBytes: 10_000_000, comparePause: 0 };

async function streaming(perSecond = 50): Promise<{ f: ReplicationFixture; traffic: Traffic }> {
  const f = await replicationFixture({
    schema: SCHEMA,
    rows: ROWS,
    sizes: SIZES,
    parts: PARTS,
    plan: { verify: 'full' },
  });
  closing.push(f.close);
  await f.stream();
  const traffic = startTraffic(f.from.uri(f.m.database), perSecond, WRITES);
  closing.push(() => traffic.stop());
  return { f, traffic };
}

const parts = (f: ReplicationFixture) =>
  f.target.query<{ name: string; looked: boolean; equal: boolean; difference: string | null }>(
    `SELECT name, looked IS NOT NULL AS looked, equal IS NOT NULL AS equal, difference
       FROM pgtransit.comparison c JOIN pgtransit.relation r ON r.oid = c.relation ORDER BY 1, c.number`,
  );

/** Until every part was looked at, from now on. */
async function lookedAtAll(f: ReplicationFixture): Promise<void> {
  await f.target.query('UPDATE pgtransit.comparison SET looked = NULL');
  await eventually(
    () => parts(f),
    (all) => all.length > 5 && all.every(({ looked }) => looked),
    120_000,
  );
}

describe('while changes stream', () => {
  test('what is the same is never said to differ, however it changes', async () => {
    const { f, traffic } = await streaming(150);
    const { ended, cancel } = runInBackground(f.steps.verifyStreaming, [f.m]);
    expect(await Promise.race([lookedAtAll(f), ended])).toBeUndefined();
    const all = await parts(f);
    expect(all.filter(({ name }) => name === 'large').length).toBeGreaterThan(2);
    expect(all.filter(({ difference }) => difference !== null)).toEqual([]);
    expect(traffic.committed()).toBeGreaterThan(100);
    cancel();
    await ended;
    await traffic.stop();
    const { conditions } = await runActivity(createReadinessActivities(f.deps).readiness, [f.m, null]);
    expect(conditions.find(({ name }) => name === 'rows')).toMatchObject({
      state: 'ok',
      detail: expect.stringMatching(/^[2-5] of 5 tables, .* were seen to be the same/) as string,
    });
    await runActivity(f.steps.waitForGate, [f.m, 0]);
  }, 150_000);

  test.each([
    [
      'a row that is another',
      `UPDATE public.large SET filler = 'y' WHERE id = 12345`,
      /public\.large .*1 rows?, with the keys \(12345\)/,
    ],
    ['a row that is missing', `DELETE FROM public.large WHERE id = 12345`, /public\.large .*with the keys \(12345\)/],
    [
      'a row too many',
      `INSERT INTO public.large VALUES (99999, 1, 1, 'extra')`,
      /public\.large .*with the keys \(99999\)/,
    ],
    [
      'a row with an odd key',
      `UPDATE public."Named, oddly" SET v = 'other' WHERE "the 'key'" = 'key 6'`,
      /public\."Named, oddly" .*with the keys \("key 6",0\)/,
    ],
    [
      'one of many alike',
      `DELETE FROM public.keyless WHERE ctid = (SELECT min(ctid) FROM public.keyless WHERE a = 1)`,
      /public\.keyless .*1 kinds of rows/,
    ],
    [
      'a row of a partition',
      `DELETE FROM public.day WHERE id = (SELECT max(id) FROM public.day)`,
      /public\.day_1 .*1 rows/,
    ],
  ])('%s on the target is found and named, stops a cutover, and may be mended', async (_, spoil, names) => {
    const { f, traffic } = await streaming();
    if (spoil.includes('max(id)')) await traffic.stop();
    await f.target.query(`SET session_replication_role = replica; BEGIN; ${spoil}; COMMIT`);
    const { ended } = runInBackground(f.steps.verifyStreaming, [f.m]);
    const failure = await ended;
    expect(failure).toMatchObject({ type: 'RowsDiffer', message: expect.stringMatching(names) as string });
    await traffic.stop();
    await expect(runActivity(f.steps.waitForGate, [f.m, 0])).rejects.toMatchObject({ type: 'RowsDiffer' });
  });

  test('a difference that was mended is forgotten', async () => {
    const { f, traffic } = await streaming();
    await f.target.query(`UPDATE public.large SET filler = 'y' WHERE id = 12345`);
    expect(await runInBackground(f.steps.verifyStreaming, [f.m]).ended).toMatchObject({ type: 'RowsDiffer' });
    await f.target.query(`UPDATE public.large SET filler = repeat('x', 40) WHERE id = 12345`);
    const { ended, cancel } = runInBackground(f.steps.verifyStreaming, [f.m]);
    expect(await Promise.race([lookedAtAll(f), ended])).toBeUndefined();
    cancel();
    await ended;
    await traffic.stop();
    await runActivity(f.steps.waitForGate, [f.m, 0]);
  }, 150_000);
});
