import { afterEach, describe, expect, test } from 'vitest';
import { startPostgres } from '../../lab/postgres-server.ts';
import { hasOldServers } from '../../lab/tools.ts';
import { connect } from '../../src/postgres/connection.ts';
import { countedAll } from '../../src/postgres/write-counters.ts';
import { eventually, runActivity } from '../support/copy-fixture.ts';
import type { ReplicationFixture, ReplicationOptions } from '../support/replication-fixture.ts';
import { replicationFixture, runInBackground } from '../support/replication-fixture.ts';

const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

const SCHEMA = `
  CREATE TABLE public."odd ""name" ("Key" text, n int, v text, PRIMARY KEY ("Key", n));
  CREATE TABLE public.big (id int PRIMARY KEY, v text);
  CREATE TABLE public.keyless (a int, b text);
  ALTER TABLE public.keyless REPLICA IDENTITY FULL;
  CREATE TABLE public.part (id int NOT NULL, v text) PARTITION BY RANGE (id);
  CREATE TABLE public.part_1 PARTITION OF public.part (PRIMARY KEY (id)) FOR VALUES FROM (0) TO (500);
  CREATE TABLE public.part_2 PARTITION OF public.part (PRIMARY KEY (id)) FOR VALUES FROM (500) TO (1000)`;
const ROWS = `
  INSERT INTO public."odd ""name" SELECT 'key ' || n, n, md5(n::text) FROM generate_series(1, 1000) n;
  INSERT INTO public.big SELECT n, repeat(md5(n::text), 4) FROM generate_series(1, 5000) n;
  INSERT INTO public.keyless SELECT n % 5, 'x' FROM generate_series(1, 100) n;
  INSERT INTO public.part SELECT n, 'p' FROM generate_series(0, 999) n`;

/** In several parts where there is a key. */
const PARTS = { comparedBytes: 200_000, comparedWholeBytes: 10_000_000, comparePause: 0 };

async function drained(options: ReplicationOptions = {}): Promise<ReplicationFixture> {
  const f = await replicationFixture({ schema: SCHEMA, rows: ROWS, ...options });
  closing.push(f.close);
  await f.stream();
  await f.source.query(`UPDATE public.big SET v = 'changed' WHERE id % 100 = 1; DELETE FROM public.part WHERE id = 7`);
  const { markLsn } = await runActivity(f.steps.mark, [f.m]);
  await runActivity(f.steps.waitForDrain, [f.m, markLsn]);
  await runActivity(f.steps.disableSubscriptions, [f.m]);
  return f;
}

describe.each([
  [10, 14],
  [17, 18],
])('behind a fence, from %i to %i', (major, target) => {
  test.runIf(hasOldServers || major !== 10)(
    'every row of every table is compared, and what differs is named with its keys',
    async () => {
      const source = major === 10 ? await startPostgres({ major }) : major;
      if (typeof source !== 'number') closing.push(source.remove);
      const f = await drained({ source, target });
      const tables = 5;
      expect(await runActivity(f.steps.verifyFenced, [f.m, 60, false])).toEqual({
        ...{ tables, unchanged: 0, ofTables: tables },
        bytes: expect.any(Number) as number,
      });

      await f.target.query(`
        UPDATE public.big SET v = 'by hand' WHERE id = 4711; DELETE FROM public.big WHERE id = 4999;
        INSERT INTO public."odd ""name" VALUES ('key, of "somebody"', 1, 'extra');
        UPDATE public.keyless SET b = 'y' WHERE ctid = (SELECT min(ctid) FROM public.keyless);
        UPDATE public.part SET v = 'q' WHERE id = 501`);
      const failed = runActivity(f.steps.verifyFenced, [f.m, 60, false]);
      await expect(failed).rejects.toMatchObject({ type: 'RowsDiffer' });
      const { message } = (await failed.catch((error: unknown) => error)) as Error;
      expect(message).toContain(
        'public.big (5000 rows on the source, 4999 on the target), with the keys (4711), (4999)',
      );
      expect(message).toContain(`public."odd ""name" (1000 rows on the source, 1001 on the target), with the keys`);
      expect(message).toContain('public.keyless (100 rows on both sides, with other values)');
      expect(message).toContain('public.part_2 (500 rows on both sides, with other values), with the keys (501)');
      expect(message).not.toContain('part_1');
      expect(message).not.toContain('by hand');
    },
    60_000,
  );
});

test('tables and columns that were renamed on both servers, or are in another order, are compared all the same', async () => {
  const f = await drained();
  await f.source.query('ALTER TABLE public.big RENAME TO large; ALTER TABLE public.large ADD later int');
  await f.target.query(`
    ALTER TABLE public.big RENAME TO large; ALTER TABLE public.large ADD later int; ALTER TABLE public.large ADD only_here int;
    ALTER TABLE public.large RENAME v TO old; ALTER TABLE public.large ADD v text; UPDATE public.large SET v = old`);
  expect(await runActivity(f.steps.verifyFenced, [f.m, 60, false])).toMatchObject({ tables: 5, ofTables: 5 });
  await f.target.query('UPDATE public.large SET later = 1 WHERE id = 5');
  await expect(runActivity(f.steps.verifyFenced, [f.m, 60, false])).rejects.toThrow(/with the keys \(5\)/);
}, 60_000);

test('a difference is told though there is no time left to find its keys', async () => {
  const f = await drained();
  await f.target.query('UPDATE public.big SET v = NULL WHERE id = 5');
  const lock = await f.open('target');
  await lock.query('BEGIN; LOCK TABLE public.big');
  const verifying = runActivity(f.steps.verifyFenced, [f.m, 3, false]);
  const found = verifying.catch((error: unknown) => error);
  const hashing = await f.open('target');
  // Behind it a lock that it is granted before the keys are looked for.
  await eventually(
    'the comparison',
    async () =>
      (await hashing.query(`SELECT FROM pg_locks WHERE relation = 'public.big'::regclass AND NOT granted`)).length > 0,
  );
  const next = await f.open('target');
  const queued = next.query('BEGIN; LOCK TABLE public.big');
  await eventually(
    'the next lock',
    async () =>
      (await hashing.query(`SELECT FROM pg_locks WHERE relation = 'public.big'::regclass AND NOT granted`)).length > 1,
  );
  await lock.query('ROLLBACK');
  await queued;
  expect(await found).toMatchObject({
    type: 'RowsDiffer',
    message: expect.stringContaining('public.big (5000 rows on both sides, with other values).') as string,
  });
  await next.query('ROLLBACK');
}, 60_000);

test('it stops when its time is over, and counts only what it has compared', async () => {
  const f = await drained();
  // Big enough not to be compared together with others.
  await f.target.query(`UPDATE pgtransit.relation SET bytes = 1e9 WHERE name = 'big'`);
  const lock = await f.open('target');
  await lock.query('BEGIN; LOCK TABLE public.big');
  const verified = await runActivity(f.steps.verifyFenced, [f.m, 2, false]);
  await lock.query('ROLLBACK');
  expect(verified.ofTables).toBe(5);
  expect(verified.tables).toBe(4);
}, 60_000);

describe('tables that were compared while they streamed', { timeout: 60_000 }, () => {
  /** Compared, drained, and no session of the test is left on the target that might not have told what it did. */
  async function compared(): Promise<ReplicationFixture> {
    const f = await replicationFixture({ schema: SCHEMA, rows: ROWS, parts: PARTS });
    closing.push(f.close);
    await f.stream();
    const comparing = runInBackground(f.steps.verifyStreaming, [f.m]);
    await eventually('every table to be compared', async () => {
      const parts = await f.target.query<{ known: boolean }>(
        'SELECT source_version IS NOT NULL AND target_version IS NOT NULL AS known FROM pgtransit.comparison',
      );
      return parts.length > 5 && parts.every(({ known }) => known);
    });
    comparing.cancel();
    await comparing.ended;
    await f.target.close();
    return f;
  }

  async function verifyDrained(f: ReplicationFixture, ended = true) {
    const { markLsn } = await runActivity(f.steps.mark, [f.m]);
    await runActivity(f.steps.waitForDrain, [f.m, markLsn]);
    await runActivity(f.steps.disableSubscriptions, [f.m]);
    return runActivity(f.steps.verifyFenced, [f.m, 60, ended]);
  }

  const once = async (f: ReplicationFixture, side: 'source' | 'target', sql: string): Promise<void> => {
    const session = await f.open(side);
    await session.query(sql);
    await session.close();
  };

  test('are not read again when neither side has written to them; one that was written to is', async () => {
    const f = await compared();
    await once(f, 'source', `UPDATE public.part SET v = 'changed' WHERE id = 700`);
    expect(await verifyDrained(f)).toMatchObject({ tables: 5, unchanged: 4, ofTables: 5 });
    expect(await runActivity(f.steps.verifyFenced, [f.m, 60, false])).toMatchObject({ tables: 5, unchanged: 0 });
    // Nobody reads what is counted as unchanged, however it is: this is what the counters are believed for.
    await once(f, 'source', 'SELECT pg_stat_reset()');
    expect(await runActivity(f.steps.verifyFenced, [f.m, 60, true])).toMatchObject({ tables: 5, unchanged: 0 });
  });

  test.each([
    ['a row that is changed', 'UPDATE public.big SET v = NULL WHERE id = 4', /public\.big .*with the keys \(4\)/],
    ['a row that is deleted', 'DELETE FROM public.big WHERE id = 4', /public\.big .*with the keys \(4\)/],
    ['TRUNCATE, which counts no rows', 'TRUNCATE public.keyless', /public\.keyless \(100 rows on the source, 0 on the/],
    ['a column that gets another default', `ALTER TABLE public.keyless ADD c int DEFAULT 5`, /public\.keyless /],
  ])('are read again after %s on the target', async (_what, sql, difference) => {
    const f = await compared();
    if (sql.startsWith('ALTER')) await once(f, 'source', sql.replace('5', '6'));
    await once(f, 'target', sql);
    await expect(verifyDrained(f)).rejects.toThrow(difference);
  });

  test('are read again where our role may not see what other sessions have told', async () => {
    const f = await compared();
    const role = `modest_${process.pid}`;
    const somebody = await f.open('target');
    await somebody.query(`CREATE ROLE ${role} LOGIN`);
    const { target } = f.endpoints;
    const modest = await connect(
      { ...target, info: { ...target.info, user: role } },
      { database: f.m.database, applicationName: 'modest' },
    );
    try {
      // Idle for long enough, but only for who may see it.
      await eventually('somebody to be hidden', async () => {
        const seen = await modest.query<{ type: string | null }>(
          `SELECT backend_type AS type FROM pg_stat_activity WHERE pid = ${somebody.pid}`,
        );
        return seen[0]?.type === null;
      });
      for (const among of ['all', 'superusers'] as const) expect(await countedAll(modest, f.m.id, among)).toBe(false);
    } finally {
      await modest.close();
      await somebody.query(`DROP ROLE ${role}`);
    }
  });

  test('are read again while a session on the target may not have told yet what it wrote', async () => {
    const f = await compared();
    const somebody = await f.open('target');
    // The server is told of the first at once, and of the second later.
    await somebody.query('UPDATE public.part SET v = v WHERE id = 1');
    await somebody.query(`UPDATE public.big SET v = 'by hand' WHERE id = 4`);
    await expect(verifyDrained(f)).rejects.toThrow(/public\.big .*with the keys \(4\)/);
  });
});
