import { afterEach, describe, expect, it } from 'vitest';
import { createCopyActivities } from '../../activities/copy.ts';
import { createIndexActivities } from '../../activities/indexes.ts';
import type { CopyFixture, FixtureOptions } from '../support/copy-fixture.ts';
import { copyFixture, countRows, eventually, runActivity } from '../support/copy-fixture.ts';

const WHOLE = { tinyTableBytes: 0, splitTableBytes: 2 ** 40, chunkBytes: 2 ** 40 };

let fixture: CopyFixture | undefined;
afterEach(async () => {
  await fixture?.close();
  fixture = undefined;
});

async function prepare(options: FixtureOptions) {
  fixture = await copyFixture(options);
  const own = fixture;
  const activities = createCopyActivities(own.deps, WHOLE);
  await runActivity(() => activities.planCopy(own.m, 0), []);
  return {
    ...own,
    copy: () => runActivity(() => activities.copyTables(own.m, 0, 0), []),
    index: (lane = 0) => runActivity(() => createIndexActivities(own.deps).buildIndexes(own.m, lane), []),
    seal: () => runActivity(() => activities.sealCopy(own.m, 0), []),
  };
}

const rows = `INSERT INTO public.t SELECT i, i, i FROM generate_series(1, 20000) i`;

describe('buildIndexes', () => {
  it('builds two unique constraints of one table in two lanes without a deadlock', async () => {
    const constraint = (name: string, column: string, what: string) => [
      { table: 'public.t', sql: `CREATE UNIQUE INDEX ${name} ON public.t (${column});` },
      {
        table: 'public.t',
        sql: `ALTER TABLE ONLY public.t ADD CONSTRAINT ${name} ${what} USING INDEX ${name};`,
        stage: 'key' as const,
      },
    ];
    const { copy, index, seal, target } = await prepare({
      schema: 'CREATE TABLE public.t (a int NOT NULL, b int, c int)',
      rows,
      entries: [
        ...constraint('pk', 'a', 'PRIMARY KEY'),
        ...constraint('ub', 'b', 'UNIQUE'),
        ...constraint('uc', 'c', 'UNIQUE'),
      ],
    });
    const [, one, two] = await Promise.all([copy(), index(0), index(1)]);
    expect(one.tables + two.tables).toBe(1);
    expect(
      await countRows(target, `pg_constraint WHERE conrelid = 'public.t'::regclass AND contype IN ('p', 'u')`),
    ).toBe(3);
    await seal();
  });

  it('waits for the rows of a table, and for what another lane is building', async () => {
    const { copy, index, target, open } = await prepare({
      schema: 'CREATE TABLE public.t (a int, b int, c int)',
      rows,
      entries: [
        { table: 'public.t', sql: 'CREATE INDEX i ON public.t (a)' },
        { table: 'public.t', sql: 'ALTER TABLE public.t ADD CONSTRAINT k CHECK (a > 0)', stage: 'key' },
      ],
    });
    let ended = false;
    const lane = index(0).finally(() => (ended = true));
    const other = await open('target');
    await other.query('BEGIN');
    await other.query(`SELECT FROM pgtransit.unit WHERE kind = 'index' FOR UPDATE`);
    await copy();
    await new Promise((resolve) => setTimeout(resolve, 1200));
    expect(ended).toBe(false);
    expect(await countRows(target, `pg_constraint WHERE conname = 'k'`)).toBe(0);
    await other.query('ROLLBACK');
    await lane;
    expect(await countRows(target, `pg_constraint WHERE conname = 'k'`)).toBe(1);
  });

  it('analyzes every table, also those without an index', async () => {
    const { copy, index, target } = await prepare({ schema: 'CREATE TABLE public.t (a int, b int, c int)', rows });
    await Promise.all([copy(), index()]);
    expect(await countRows(target, `pg_stats WHERE schemaname = 'public' AND tablename = 't'`)).toBe(3);
  });

  it('names index and table when rows are not unique, and goes on after they were mended', async () => {
    const { copy, index, target } = await prepare({
      schema: 'CREATE TABLE public.t (a int, b int, c int)',
      rows: `${rows}; INSERT INTO public.t VALUES (7, 7, 7)`,
      entries: [{ table: 'public.t', sql: 'CREATE UNIQUE INDEX only_once ON public.t (a)' }],
    });
    await copy();
    await expect(index()).rejects.toMatchObject({
      type: 'IndexFailed',
      message: expect.stringMatching(/only_once.*public\.t.*\(a\)=\(7\)/) as string,
      details: { sqlstate: '23505' },
    });
    expect(await countRows(target, `pgtransit.entry WHERE state = 'done'`)).toBe(0);
    await target.query('DELETE FROM public.t WHERE ctid = (SELECT max(ctid) FROM public.t)');
    await index();
    expect(await countRows(target, `pg_class WHERE relname = 'only_once'`)).toBe(1);
  });

  it('builds nothing twice when its backend is killed in the middle', async () => {
    const { copy, index, target } = await prepare({
      // Sleeps as long as the brake is on.
      schema: `CREATE TABLE public.t (a int, b int, c int); CREATE TABLE public.brake (); CREATE FUNCTION public.slow(int) RETURNS int IMMUTABLE LANGUAGE plpgsql
               AS $$ BEGIN IF $1 = 1 AND EXISTS (SELECT FROM public.brake) THEN PERFORM pg_sleep(60); END IF; RETURN $1; END $$`,
      rows,
      entries: [
        { table: 'public.t', sql: 'CREATE INDEX first ON public.t (a)' },
        { table: 'public.t', sql: 'CREATE INDEX second ON public.t (public.slow(b))' },
      ],
    });
    await copy();
    await target.query('INSERT INTO public.brake DEFAULT VALUES');
    const lane = index();
    lane.catch(() => undefined);
    await eventually('the second index being built', async () => {
      const killed = await target.query(
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%second%' AND state = 'active' AND datname = current_database() AND pid <> pg_backend_pid()`,
      );
      return killed.length > 0;
    });
    await expect(lane).rejects.toMatchObject({ type: 'ConnectionFailed' });
    expect(await countRows(target, `pgtransit.entry WHERE state = 'done'`)).toBe(1);
    await target.query('DELETE FROM public.brake');
    await index();
    expect(await countRows(target, `pg_index WHERE indrelid = 'public.t'::regclass AND indisvalid`)).toBe(2);
  });

  it('ends at once when it is run again', async () => {
    const { copy, index } = await prepare({ schema: 'CREATE TABLE public.t (a int, b int, c int)', rows });
    await Promise.all([copy(), index()]);
    expect(await index()).toMatchObject({ tables: 0 });
  });
});
