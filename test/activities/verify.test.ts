import { afterEach, describe, expect, it } from 'vitest';
import { createCopyActivities } from '../../activities/copy.ts';
import { createVerifyActivities } from '../../activities/verify.ts';
import type { CopyFixture, FixtureOptions } from '../support/copy-fixture.ts';
import { copyFixture, countRows, runActivity } from '../support/copy-fixture.ts';

let fixture: CopyFixture | undefined;
afterEach(async () => {
  await fixture?.close();
  fixture = undefined;
});

async function copied(options: FixtureOptions) {
  fixture = await copyFixture(options);
  const own = fixture;
  const activities = createCopyActivities(own.deps);
  await runActivity(() => activities.planCopy(own.m, 0), []);
  await runActivity(() => activities.copyTables(own.m, 0, 0), []);
  return { ...own, verify: () => runActivity(() => createVerifyActivities(own.deps).verifyCopied(own.m, 0), []) };
}

const NUMBERS = {
  // A column named like an alias of ours must not stand for the row.
  schema: 'CREATE TABLE public.t (id int, r text, f float8); CREATE TABLE public."None" ()',
  rows: `INSERT INTO public.t SELECT i, 'same', random() FROM generate_series(1, 1000) i; INSERT INTO public."None" SELECT FROM generate_series(1, 3)`,
};

describe('verifyCopied', () => {
  it('finds equal tables equal, whatever happened on the source since the snapshot', async () => {
    const { verify, source } = await copied(NUMBERS);
    await source.query('DELETE FROM public.t WHERE id < 500');
    expect(await verify()).toMatchObject({ tables: 2, rows: 1003 });
  });

  it.each([
    [
      'a changed value',
      `UPDATE public.t SET f = f + 1e-12 WHERE id = 7`,
      /public\.t \(1000 rows on both sides, with other values\)/,
    ],
    ['a missing row', `DELETE FROM public.t WHERE id = 7`, /public\.t \(1000 rows on the source, 999 on the target\)/],
    [
      'two values that changed places',
      `UPDATE public.t SET f = (SELECT f FROM public.t o WHERE o.id = 15 - t.id) WHERE id IN (7, 8)`,
      /other values/,
    ],
    [
      'a row twice and another one not at all',
      `DELETE FROM public.t WHERE id = 7; INSERT INTO public.t SELECT * FROM public.t WHERE id = 8`,
      /other values/,
    ],
    [
      'a row of a table without columns',
      `INSERT INTO public."None" DEFAULT VALUES`,
      /public\."None" \(3 rows on the source, 4 on the target\)/,
    ],
  ])('finds %s', async (_what, sql, message) => {
    const { verify, target } = await copied(NUMBERS);
    await target.query(sql);
    await expect(verify()).rejects.toMatchObject({
      type: 'RowsDiffer',
      message: expect.stringMatching(message) as string,
    });
  });

  it('finds a stored generated column that the target computes otherwise', async () => {
    const { verify } = await copied({
      schema: `CREATE FUNCTION public.f(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1'; CREATE TABLE public.g (id int, twice int GENERATED ALWAYS AS (public.f(id)) STORED)`,
      onTarget: `CREATE OR REPLACE FUNCTION public.f(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 + 1'`,
      rows: 'INSERT INTO public.g VALUES (1)',
    });
    await expect(verify()).rejects.toMatchObject({ type: 'RowsDiffer', details: { object: 'public.g' } });
  });

  it('names at most ten tables and counts the rest', async () => {
    const names = Array.from({ length: 14 }, (_, index) => `public.t${index}`);
    const { verify, target } = await copied({ schema: names.map((name) => `CREATE TABLE ${name} (id int)`).join(';') });
    await target.query(names.map((name) => `INSERT INTO ${name} VALUES (1)`).join(';'));
    await expect(verify()).rejects.toMatchObject({
      message: expect.stringMatching(/: (public\.t\d+ \([^)]*\)(, )?){10} and 4 more/) as string,
    });
  });

  it('leaves out a table that was rewritten on the source after its copy, and says so in the report', async () => {
    const { verify, source, target } = await copied(NUMBERS);
    await source.query('VACUUM FULL public.t');
    await source.query('DROP TABLE public."None"');
    expect(await verify()).toMatchObject({ tables: 0, rows: 0 });
    expect(await countRows(target, `pgtransit.event WHERE warning AND message LIKE '%public.t%'`)).toBe(1);
  });

  it('compares partitions whose rows the target routes at their parent', async () => {
    const parts = [0, 1].map(
      (part) => `CREATE TABLE public.p${part} PARTITION OF public.p FOR VALUES WITH (MODULUS 2, REMAINDER ${part})`,
    );
    const { verify, target } = await copied({
      schema: `CREATE TYPE public.mood AS ENUM ('sad', 'ok', 'happy'); CREATE TABLE public.p (m public.mood, id int) PARTITION BY HASH (m); ${parts.join(';')}`,
      rows: `INSERT INTO public.p SELECT (ARRAY['sad', 'ok', 'happy'])[1 + i % 3]::public.mood, i FROM generate_series(1, 99) i`,
    });
    expect(await verify()).toMatchObject({ tables: 1, rows: 99 });
    await target.query('UPDATE public.p SET id = 0 WHERE id = 50');
    await expect(verify()).rejects.toMatchObject({ type: 'RowsDiffer', details: { object: 'public.p' } });
  });

  it('compares databases of different encodings', async () => {
    const { verify } = await copied({
      ...NUMBERS,
      sourceEncoding: 'LATIN1',
      rows: `INSERT INTO public.t VALUES (1, 'é', 0.1)`,
    });
    expect(await verify()).toMatchObject({ rows: 1 });
  });
});
