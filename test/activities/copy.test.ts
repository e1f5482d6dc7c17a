import { MockActivityEnvironment } from '@temporalio/testing';
import { afterEach, describe, expect, it } from 'vitest';
import { createCopyActivities } from '../../activities/copy.ts';
import { createIndexActivities } from '../../activities/indexes.ts';
import type { LaneProgress } from '../../src/domain/migration.ts';
import { findUnfinished, readCopyProgress } from '../../src/postgres/unit.ts';
import type { CopyFixture, FixtureOptions } from '../support/copy-fixture.ts';
import { copyFixture, countRows, eventually, runActivity, besideAnother } from '../support/copy-fixture.ts';

/** So small that a table of some pages is split, and that nothing is tiny unless a test wants it. */
const SPLIT = { tinyTableBytes: 0, splitTableBytes: 64 * 1024, chunkBytes: 64 * 1024 };
const WHOLE = { tinyTableBytes: 0, splitTableBytes: 2 ** 40, chunkBytes: 2 ** 40 };
const TINY = { tinyTableBytes: 2 ** 30, splitTableBytes: 2 ** 40, chunkBytes: 2 ** 40 };

let fixture: CopyFixture | undefined;
afterEach(async () => {
  await fixture?.close();
  fixture = undefined;
});

async function prepare(options: FixtureOptions, sizes = WHOLE) {
  fixture = await copyFixture(options);
  const own = fixture;
  const activities = createCopyActivities(own.deps, sizes);
  return {
    ...own,
    plan: () => runActivity(() => activities.planCopy(own.m, 0), []),
    copy: (lane = 0, environment = new MockActivityEnvironment()): Promise<LaneProgress> =>
      runActivity(() => activities.copyTables(own.m, 0, lane), [], environment),
    index: (lane = 0) => runActivity(() => createIndexActivities(own.deps).buildIndexes(own.m, lane), []),
    seal: () => runActivity(() => activities.sealCopy(own.m, 0), []),
  };
}

const NUMBERS = {
  schema: 'CREATE TABLE public.t (id int, filler text)',
  rows: `INSERT INTO public.t SELECT i, repeat('x', 200) FROM generate_series(1, 5000) i`,
};

describe('planCopy', () => {
  it('writes the plan once, however often it runs', async () => {
    const { plan, target } = await prepare(NUMBERS, SPLIT);
    const first = await plan();
    expect(first).toMatchObject({ tables: 1, indexes: 0 });
    expect(first.units).toBeGreaterThan(10);
    expect(await plan()).toEqual(first);
    expect(await countRows(target, `pgtransit.unit WHERE kind = 'copy'`)).toBe(first.units);
  });

  it('plans once when two attempts run at the same time', async () => {
    const { plan } = await prepare(NUMBERS, SPLIT);
    expect(await besideAnother(plan)).toEqual(await plan());
  });

  it('empties a split table before its first part, because no part does', async () => {
    const { plan, copy, target } = await prepare(
      { ...NUMBERS, onTarget: `INSERT INTO public.t VALUES (0, 'left over')` },
      SPLIT,
    );
    await plan();
    await copy();
    expect(await countRows(target, 'public.t')).toBe(5000);
  });

  it('refuses a generation that is being closed', async () => {
    const { plan, target } = await prepare(NUMBERS);
    await target.query(`UPDATE pgtransit.generation SET state = 'closing'`);
    await expect(plan()).rejects.toMatchObject({ type: 'SnapshotLost' });
  });
});

describe('copyTables', () => {
  it.each([
    ['whole', WHOLE],
    ['in parts', SPLIT],
    ['as a tiny table', TINY],
  ])('copies what the snapshot saw, not what was written later: %s', async (_how, sizes) => {
    const { plan, copy, seal, source, target } = await prepare(NUMBERS, sizes);
    await plan();
    await source.query('INSERT INTO public.t VALUES (5001)');
    await source.query('DELETE FROM public.t WHERE id <= 10');
    const progress = await copy();
    expect(progress).toMatchObject({ tables: 1, rows: 5000, current: null });
    expect(await target.query('SELECT count(DISTINCT id)::int AS ids, count(*)::int AS rows FROM public.t')).toEqual([
      { ids: 5000, rows: 5000 },
    ]);
    expect((await readCopyProgress(target)).tables).toEqual({ copied: 1, total: 1 });
    if (sizes === TINY) expect(await seal()).toMatchObject({ tables: 1, rows: 5000 });
  });

  it('copies rows that lie beyond the pages that were counted when the parts were cut', async () => {
    const { plan, copy, target } = await prepare(NUMBERS, SPLIT);
    await plan();
    await target.query(`UPDATE pgtransit.unit SET first_page = 3 WHERE end_page IS NULL AND kind = 'copy'`);
    await target.query(`DELETE FROM pgtransit.unit WHERE first_page >= 3 AND end_page IS NOT NULL AND kind = 'copy'`);
    await target.query(`UPDATE pgtransit.unit SET end_page = 3 WHERE first_page < 3 AND end_page > 3`);
    await copy();
    expect(await countRows(target, 'public.t')).toBe(5000);
  });

  it('does nothing when everything is done', async () => {
    const { plan, copy, target } = await prepare(NUMBERS);
    await plan();
    await copy();
    expect(await copy()).toMatchObject({ tables: 0, rows: 0 });
    expect(await countRows(target, 'public.t')).toBe(5000);
  });

  it('freezes the rows of a table that it copies whole', async () => {
    const { plan, copy, target } = await prepare(NUMBERS);
    await plan();
    await copy();
    await target.query('CREATE EXTENSION pg_visibility SCHEMA public');
    const { pages } = await target.one<{ pages: number }>(
      `SELECT count(*)::int AS pages FROM public.pg_visibility_map('public.t') WHERE all_frozen`,
    );
    expect(pages).toBeGreaterThan(100);
  });

  const REWRITES = [
    ['CLUSTER', 'CREATE INDEX i ON public.t (id); CLUSTER public.t USING i'],
    ['VACUUM FULL', 'VACUUM FULL public.t'],
    ['TRUNCATE', 'TRUNCATE public.t'],
    ['a rewriting ALTER', 'ALTER TABLE public.t ALTER id TYPE bigint'],
    ['a rename over it', 'ALTER TABLE public.t RENAME TO old; CREATE TABLE public.t (id int, filler text)'],
    ['DROP', 'DROP TABLE public.t'],
  ] as const;

  it.each(REWRITES)('stops at %s between snapshot and copy, naming the table', async (_name, sql) => {
    for (const sizes of [WHOLE, TINY]) {
      const { plan, copy, source, target, close } = await prepare(NUMBERS, sizes);
      await plan();
      for (const statement of sql.split('; ')) await source.query(statement);
      await expect(copy()).rejects.toMatchObject({ type: 'SnapshotLost', details: { object: 'public.t' } });
      expect(await countRows(target, 'public.t')).toBe(0);
      await close();
    }
    fixture = undefined;
  });

  it.each(REWRITES)('stops at %s between two parts of a table', async (_name, sql) => {
    const { plan, copy, source, target } = await prepare(NUMBERS, SPLIT);
    await plan();
    // All parts but one are held, so that the lane copies that one and then waits.
    const zombie = await fixture!.open('target');
    await zombie.query('BEGIN');
    await zombie.query(`SELECT FROM pgtransit.unit WHERE kind = 'copy' AND first_page > 0 FOR UPDATE`);
    const lane = copy();
    lane.catch(() => undefined);
    await eventually(
      'one part copied',
      async () => (await countRows(target, `pgtransit.unit WHERE state = 'done'`)) === 1,
    );
    for (const statement of sql.split('; ')) await source.query(statement);
    await zombie.query('ROLLBACK');
    await expect(lane).rejects.toMatchObject({ type: 'SnapshotLost' });
    await expect(findUnfinished(target, 0, ['copy'])).resolves.not.toEqual([]);
  });

  it('is not stopped by writes, ANALYZE, a new index or plain VACUUM', async () => {
    const { plan, copy, source, target } = await prepare(NUMBERS);
    await plan();
    await source.query('UPDATE public.t SET id = id + 1');
    await source.query('VACUUM ANALYZE public.t');
    await source.query('CREATE INDEX ON public.t (id)');
    await source.query('ALTER TABLE public.t ADD COLUMN later int DEFAULT 7');
    await copy();
    expect(await target.one('SELECT min(id) AS min, max(id) AS max FROM public.t')).toEqual({ min: 1, max: 5000 });
  });

  it('says that the snapshot is lost when its holder is gone', async () => {
    const { plan, copy, loseSnapshot } = await prepare(NUMBERS);
    await plan();
    await loseSnapshot();
    await expect(copy()).rejects.toMatchObject({ type: 'SnapshotLost' });
  });

  it('waits for a unit that a zombie holds, and copies nothing beside it', async () => {
    const { plan, copy, target, open } = await prepare(NUMBERS);
    await plan();
    const zombie = await open('target');
    await zombie.query('BEGIN');
    await zombie.query(`SELECT FROM pgtransit.unit FOR UPDATE`);
    await zombie.query(`INSERT INTO public.t VALUES (1, 'by the zombie')`);
    await zombie.query(`UPDATE pgtransit.unit SET state = 'done', rows = 1`);
    let ended = false;
    const lane = copy().finally(() => (ended = true));
    await new Promise((resolve) => setTimeout(resolve, 1500));
    expect(ended).toBe(false);
    await zombie.query('COMMIT');
    expect(await lane).toMatchObject({ tables: 0, rows: 0 });
    expect(await countRows(target, 'public.t')).toBe(1);
  });

  it('takes the unit that another lane gave back after this one ran dry', async () => {
    const { plan, copy, target, open } = await prepare(NUMBERS, SPLIT);
    await plan();
    const other = await open('target');
    await other.query('BEGIN');
    await other.query(`SELECT FROM pgtransit.unit WHERE kind = 'copy' ORDER BY bytes DESC, id LIMIT 1 FOR UPDATE`);
    const lane = copy();
    await eventually(
      'one unit left',
      async () => (await countRows(target, `pgtransit.unit WHERE kind = 'copy' AND state = 'todo'`)) === 1,
    );
    other.destroy();
    await lane;
    expect(await countRows(target, 'public.t')).toBe(5000);
  });

  it('gives way to a lock of the application on a tiny table, and copies the table afterwards', async () => {
    const { plan, copy, target, open } = await prepare(
      {
        schema: 'CREATE TABLE public.a (id int); CREATE TABLE public.b (id int)',
        rows: 'INSERT INTO public.a VALUES (1); INSERT INTO public.b VALUES (1)',
      },
      TINY,
    );
    await plan();
    const application = await open('source');
    await application.query('BEGIN');
    await application.query('LOCK TABLE public.b');
    const lane = copy();
    await new Promise((resolve) => setTimeout(resolve, 1500));
    // It holds nothing that the application could need next.
    await application.query('LOCK TABLE public.a');
    await application.query('COMMIT');
    await lane;
    expect([await countRows(target, 'public.a'), await countRows(target, 'public.b')]).toEqual([1, 1]);
  });

  it('loses and doubles nothing when a backend is killed in the middle, and copies no finished table again', async () => {
    const { plan, copy, source, target } = await prepare({
      schema: 'CREATE TABLE public.small (id int); CREATE TABLE public.big (id int, filler text)',
      rows: `INSERT INTO public.small SELECT generate_series(1, 100);
             INSERT INTO public.big SELECT i, repeat(md5(i::text), 100) FROM generate_series(1, 40000) i`,
    });
    await plan();
    // The small one first.
    await target.query(`UPDATE pgtransit.unit SET bytes = 2^40 WHERE label = 'public.small'`);
    for (const server of ['target', 'source'] as const) {
      const admin = server === 'target' ? target : source;
      const lane = copy();
      lane.catch(() => undefined);
      await eventually('a COPY at work', async () => {
        const [row] = await admin.query<{ pid: number }>(
          `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%COPY "public"."big"%' AND datname = current_database() AND pid <> pg_backend_pid() AND state = 'active'`,
        );
        return row !== undefined;
      });
      await expect(lane).rejects.toMatchObject({ type: 'ConnectionFailed' });
      expect(await countRows(target, 'public.big')).toBe(0);
    }
    const { finished } = await target.one<{ finished: string }>(
      `SELECT finished::text FROM pgtransit.unit WHERE label = 'public.small' AND kind = 'copy'`,
    );
    expect(await copy()).toMatchObject({ tables: 1, rows: 40000 });
    expect(await countRows(target, 'public.big')).toBe(40000);
    expect(
      await target.one(`SELECT finished::text FROM pgtransit.unit WHERE label = 'public.small' AND kind = 'copy'`),
    ).toEqual({ finished });
  });

  it('leaves no session behind when it is cancelled', async () => {
    const { plan, copy, target, open } = await prepare(NUMBERS);
    await plan();
    const zombie = await open('target');
    await zombie.query('BEGIN; LOCK TABLE public.t');
    const environment = new MockActivityEnvironment();
    const lane = copy(0, environment);
    lane.catch(() => undefined);
    const ours = `pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'pgtransit%'`;
    await eventually(
      'a lane that waits',
      async () => (await countRows(target, `${ours} AND wait_event_type = 'Lock'`)) === 1,
    );
    environment.cancel();
    await expect(lane).rejects.toThrow();
    await eventually('no session of ours', async () => (await countRows(target, ours)) === 0);
  });

  it('ends the sessions of its own earlier attempt, and no others', async () => {
    const { plan, copy, target, open } = await prepare(NUMBERS);
    await plan();
    const [zombie, stranger] = [await open('target'), await open('target')];
    await zombie.query('BEGIN');
    await zombie.query('SELECT FROM pgtransit.unit FOR UPDATE');
    // The stranger has a pid that the ledger knows, but started at another time: it is somebody else now.
    await target.query(
      `INSERT INTO pgtransit.lane SELECT 'copy', 0, 'target', pid, backend_start::text FROM pg_stat_activity WHERE pid = $1`,
      [zombie.pid],
    );
    await target.query(`INSERT INTO pgtransit.lane VALUES ('copy', 1, 'target', $1, '2020-01-01 00:00:00+00')`, [
      stranger.pid,
    ]);
    await copy(0);
    await copy(1);
    expect(await countRows(target, 'public.t')).toBe(5000);
    expect(await stranger.one('SELECT 1 AS alive')).toEqual({ alive: 1 });
    await expect(zombie.query('SELECT 1')).rejects.toThrow();
  });

  it('names table and constraint when the target refuses a row', async () => {
    for (const sizes of [WHOLE, TINY]) {
      const { plan, copy, target, close } = await prepare(
        {
          ...NUMBERS,
          schema: `${NUMBERS.schema}; CREATE TABLE public.before (id int); CREATE TABLE public.zafter (id int)`,
          onTarget: 'ALTER TABLE public.t ADD CONSTRAINT few CHECK (id < 4000)',
        },
        sizes,
      );
      await plan();
      await expect(copy()).rejects.toMatchObject({
        type: 'CopyFailed',
        message: expect.stringMatching(/copying public\.t on the target: .*"few"/) as string,
        details: { object: 'public.t', sqlstate: '23514' },
      });
      expect(await countRows(target, 'public.t')).toBe(0);
      await close();
    }
    fixture = undefined;
  });

  it('copies many tiny tables with their indexes and keys', async () => {
    const names = Array.from({ length: 250 }, (_, index) => `public."T ${index}"`);
    const { plan, copy, index, seal, target } = await prepare(
      {
        schema: names.map((name) => `CREATE TABLE ${name} (id int, filler text)`).join(';'),
        rows: names.map((name, number) => `INSERT INTO ${name} SELECT generate_series(1, ${number})`).join(';'),
        entries: names.flatMap((table, number) => [
          { table, sql: `CREATE UNIQUE INDEX "pk ${number}" ON ${table} (id);` },
          { table, sql: `CREATE INDEX ON ${table} (filler);` },
          {
            table,
            sql: `ALTER TABLE ONLY ${table} ADD CONSTRAINT "pk ${number}" PRIMARY KEY USING INDEX "pk ${number}";`,
            stage: 'key' as const,
          },
        ]),
      },
      TINY,
    );
    expect(await plan()).toMatchObject({ tables: 250, units: 250, indexes: 500 });
    await Promise.all([copy(0), copy(1), index()]);
    expect(await seal()).toMatchObject({ tables: 250, rows: (249 * 250) / 2 });
    expect(await countRows(target, `pg_constraint WHERE contype = 'p' AND conrelid::regclass::text LIKE '%T %'`)).toBe(
      250,
    );
    expect(
      await countRows(target, `pg_statistic s JOIN pg_class c ON c.oid = starelid WHERE relname = 'T 249'`),
    ).toBeGreaterThan(0);
    expect(await readCopyProgress(target)).toMatchObject({
      tables: { copied: 250, total: 250 },
      indexes: { built: 500, total: 500 },
    });
  });

  it('routes the rows of enum hash partitions through the parent', async () => {
    const parts = [0, 1, 2].map(
      (part) => `CREATE TABLE public.p${part} PARTITION OF public.p FOR VALUES WITH (MODULUS 3, REMAINDER ${part})`,
    );
    const { plan, copy, target } = await prepare({
      schema: `CREATE TYPE public.mood AS ENUM ('sad', 'ok', 'happy'); CREATE TABLE public.p (m public.mood, id int) PARTITION BY HASH (m); ${parts.join(';')}`,
      // Other oids, so another hash.
      onTarget: `DROP TABLE public.p; DROP TYPE public.mood; CREATE TYPE public.other AS ENUM ('x'); CREATE TYPE public.mood AS ENUM ('sad', 'ok', 'happy');
                 CREATE TABLE public.p (m public.mood, id int) PARTITION BY HASH (m); ${parts.join(';')}`,
      rows: `INSERT INTO public.p SELECT (ARRAY['sad', 'ok', 'happy'])[1 + i % 3]::public.mood, i FROM generate_series(1, 999) i`,
    });
    await plan();
    await copy();
    expect(await countRows(target, 'public.p')).toBe(999);
  });
});

describe('sealCopy', () => {
  it('refuses while anything is unfinished, naming it, and seals once', async () => {
    const { plan, copy, index, seal, target } = await prepare({
      ...NUMBERS,
      entries: [{ table: 'public.t', sql: 'CREATE INDEX by_id ON public.t (id)' }],
    });
    await expect(seal()).rejects.toMatchObject({
      type: 'NotComplete',
      message: expect.stringContaining('never planned') as string,
    });
    await plan();
    await expect(seal()).rejects.toMatchObject({ type: 'NotComplete', details: { object: 'public.t' } });
    await copy();
    await expect(seal()).rejects.toMatchObject({
      type: 'NotComplete',
      message: expect.stringContaining('by_id') as string,
    });
    await index();
    const sealed = await seal();
    expect(sealed).toMatchObject({ tables: 1, rows: 5000 });
    expect(await seal()).toEqual(sealed);
    expect(await target.one('SELECT state FROM pgtransit.generation')).toEqual({ state: 'sealed' });
  });
});
