import { MockActivityEnvironment } from '@temporalio/testing';
import { afterEach, describe, expect, test } from 'vitest';
import { applicationName, generationName } from '../../src/contract.ts';
import type { Session } from '../../src/postgres/connection.ts';
import { countRows, eventually, runActivity } from '../support/copy-fixture.ts';
import type { ReplicationFixture } from '../support/replication-fixture.ts';
import { replicationFixture } from '../support/replication-fixture.ts';

const REASON = 'it was taken away';

const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

/** Big enough to be a unit of its own; `parts` is split into several. */
const SIZES = { tinyTableBytes: 0, splitTableBytes: 200_000, chunkBytes: 100_000 };

const SCHEMA = `
CREATE TABLE public.done (id int PRIMARY KEY, v text);
CREATE TABLE public.left_over (id int PRIMARY KEY, v text);
CREATE TABLE public.parts (id int PRIMARY KEY, v text);`;

const ROWS = `
INSERT INTO public.done SELECT g, 'before' FROM generate_series(1, 100) g;
INSERT INTO public.left_over SELECT g, 'before' FROM generate_series(1, 100) g;
INSERT INTO public.parts SELECT g, repeat('x', 500) FROM generate_series(1, 2000) g;`;

/** Generation 0 is planned, `done` and the first part of `parts` are in, `left_over` is not. */
async function halfway(): Promise<ReplicationFixture> {
  const f = await replicationFixture({ schema: SCHEMA, rows: ROWS, sizes: SIZES });
  closing.push(f.close);
  await runActivity(f.steps.openSnapshot, [f.m, 0]);
  await runActivity(f.steps.planCopy, [f.m, 0]);
  // Whoever holds a unit keeps the lanes from it.
  const holder = await f.open('target');
  await holder.query('BEGIN');
  await holder.query(
    `SELECT FROM pgtransit.unit WHERE kind = 'copy' AND (label = 'public.left_over' OR label LIKE 'public.parts (part 2%') FOR UPDATE`,
  );
  const lane = runActivity(f.steps.copyTables, [f.m, 0, 0]).catch(() => undefined);
  await eventually('only what is held', async () => (await unfinished(f)).length === 2);
  await f.target.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1', [
    applicationName(f.m.id, 'copy'),
  ]);
  await lane;
  await holder.query('ROLLBACK');
  return f;
}

const unfinished = async (f: ReplicationFixture): Promise<string[]> =>
  (
    await f.target.query<{ label: string }>(
      `SELECT label FROM pgtransit.unit WHERE kind = 'copy' AND state = 'todo' ORDER BY label`,
    )
  ).map(({ label }) => label);

const published = async (source: Session, name: string): Promise<string[]> =>
  (
    await source.query<{ tablename: string }>(
      'SELECT tablename FROM pg_publication_tables WHERE pubname = $1 ORDER BY 1',
      [name],
    )
  ).map(({ tablename }) => tablename);

const withSlot = async (f: ReplicationFixture): Promise<number[]> =>
  (await f.target.query<{ number: number }>('SELECT number FROM pgtransit.generation WHERE slot ORDER BY number')).map(
    ({ number }) => number,
  );

const close = (f: ReplicationFixture, generation = 0) =>
  runActivity(f.steps.closeGeneration, [f.m, generation, REASON]);

/** The rest under the next snapshot, then everything streams until both sides are still. */
async function finish(f: ReplicationFixture, generation: number): Promise<void> {
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
  const { markLsn } = await runActivity(steps.mark, [m]);
  await runActivity(steps.waitForDrain, [m, markLsn]);
}

async function expectEqualRows(f: ReplicationFixture): Promise<void> {
  for (const table of ['done', 'left_over', 'parts']) {
    const sql = `SELECT count(*)::text AS rows, sum(hashtextextended(t::text, 0))::text AS sum FROM public.${table} t`;
    expect(await f.target.query(sql), table).toEqual(await f.source.query(sql));
  }
}

describe('a generation whose snapshot is lost', () => {
  test('keeps its finished tables and their slot; the others are emptied and come with the next one', async () => {
    const f = await halfway();
    await f.source.query(`UPDATE public.done SET v = 'between'; UPDATE public.left_over SET v = 'between'`);
    expect(await close(f)).toEqual({ sealed: false, finished: 1, left: 2, ranges: 0 });
    expect(await published(f.source, generationName(f.m.id, 0))).toEqual(['done']);
    expect(await countRows(f.target, 'public.parts')).toBe(0);
    expect(await countRows(f.target, 'public.done')).toBe(100);
    await f.source.query(
      `UPDATE public.done SET v = 'after' WHERE id > 50; DELETE FROM public.left_over WHERE id > 90`,
    );
    await finish(f, 1);
    expect(await published(f.source, generationName(f.m.id, 1))).toEqual(['left_over', 'parts']);
    await expectEqualRows(f);
  });

  test('may be closed again after a death at any point, and twice at once', async () => {
    const f = await halfway();
    const attempts = await Promise.allSettled([close(f), close(f)]);
    expect(attempts.some(({ status }) => status === 'fulfilled')).toBe(true);
    expect(await close(f)).toEqual({ sealed: false, finished: 1, left: 2, ranges: 0 });
    // Dead after the ledger had decided, before the source followed.
    await f.source.query(`ALTER PUBLICATION ${generationName(f.m.id, 0)} ADD TABLE ONLY public.left_over`);
    await f.target.query(`UPDATE pgtransit.generation SET state = 'closing'`);
    expect(await close(f)).toEqual({ sealed: false, finished: 1, left: 2, ranges: 0 });
    expect(await published(f.source, generationName(f.m.id, 0))).toEqual(['done']);
    await finish(f, 1);
    await expectEqualRows(f);
  });

  test('takes nothing of a session that had imported the snapshot before', async () => {
    const f = await halfway();
    const zombie = await f.open('target', applicationName(f.m.id, 'copy'));
    zombie.client.on('error', () => undefined);
    await zombie.query('BEGIN');
    await zombie.query(`SELECT FROM pgtransit.generation WHERE number = 0 FOR SHARE`);
    await zombie.query(`SELECT FROM pgtransit.unit WHERE label = 'public.left_over' FOR UPDATE`);
    await zombie.query(`INSERT INTO public.left_over VALUES (1, 'of the lost snapshot')`);
    expect(await close(f)).toMatchObject({ left: 2 });
    await expect(zombie.query('COMMIT')).rejects.toThrow();
    await expect(runActivity(f.steps.copyTables, [f.m, 0, 0])).rejects.toMatchObject({ type: 'SnapshotLost' });
    expect(await countRows(f.target, 'public.left_over')).toBe(0);
    await finish(f, 1);
    await expectEqualRows(f);
  });

  test('leaves nothing where nothing was finished', async () => {
    const f = await replicationFixture({ schema: SCHEMA, rows: ROWS, sizes: SIZES });
    closing.push(f.close);
    await runActivity(f.steps.openSnapshot, [f.m, 0]);
    expect(await close(f)).toEqual({ sealed: false, finished: 0, left: 0, ranges: 0 });
    // An attempt that was asleep makes nothing either.
    await runActivity(f.steps.openSnapshot, [f.m, 0]);
    expect(await f.source.query('SELECT FROM pg_replication_slots WHERE slot_name LIKE $1', [`%${f.m.id}%`])).toEqual(
      [],
    );
    expect(await published(f.source, generationName(f.m.id, 0))).toEqual([]);
    await finish(f, 1);
    await expectEqualRows(f);
    expect(await withSlot(f)).toEqual([1]);
  });

  test.each([
    ['dropped', ['SELECT pg_drop_replication_slot($1)']],
    ['made anew', ['SELECT pg_drop_replication_slot($1)', `SELECT pg_create_logical_replication_slot($1, 'pgoutput')`]],
  ])('copies its finished tables too when its slot was %s', async (_, statements) => {
    const f = await halfway();
    await f.source.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1', [
      applicationName(f.m.id, 'holder'),
    ]);
    await eventually('the holder gone', async () => {
      const rows = await f.source.query('SELECT FROM pg_replication_slots WHERE active AND slot_name LIKE $1', [
        `%${f.m.id}%`,
      ]);
      return rows.length === 0;
    });
    await f.source.query(`UPDATE public.done SET v = 'lost to the slot'`);
    for (const sql of statements) await f.source.query(sql, [generationName(f.m.id, 0)]);
    expect(await close(f)).toEqual({ sealed: false, finished: 0, left: 3, ranges: 0 });
    await finish(f, 1);
    await expectEqualRows(f);
  });

  test('can be lost again and again', async () => {
    const f = await halfway();
    for (const generation of [0, 1, 2]) {
      expect(await close(f, generation)).toMatchObject({ finished: 1, left: 2, ranges: 0 });
      await runActivity(f.steps.openSnapshot, [f.m, generation + 1]);
      // The second one is lost before its copy is planned.
      if (generation !== 1) await runActivity(f.steps.planCopy, [f.m, generation + 1]);
    }
    await f.source.query(`UPDATE public.done SET v = 'after'`);
    await close(f, 3);
    await finish(f, 4);
    await expectEqualRows(f);
    expect(await withSlot(f)).toEqual([0, 4]);
  });

  test('does not end the sessions of the next one when somebody closes or keeps it late', async () => {
    const f = await halfway();
    await close(f);
    await runActivity(f.steps.openSnapshot, [f.m, 1]);
    const holders = () =>
      f.source.query('SELECT pid FROM pg_stat_activity WHERE application_name = $1', [
        applicationName(f.m.id, 'holder'),
      ]);
    const before = await holders();
    expect(before).toHaveLength(1);
    await close(f);
    await runActivity(f.steps.keepSnapshot, [f.m, 0]);
    expect(await holders()).toEqual(before);
  });

  test('is given up when more dead rows have come since than the plan allows, whichever attempt keeps it', async () => {
    const f = await replicationFixture({
      schema: SCHEMA,
      rows: ROWS,
      sizes: SIZES,
      plan: { snapshot: { maxDeadTuples: 1000 } },
    });
    closing.push(f.close);
    // Only pruning and ANALYZE could change the count of those that are there, and nobody else comes by.
    for (const table of ['done', 'left_over', 'parts'])
      await f.source.query(`ALTER TABLE public.${table} SET (autovacuum_enabled = off)`);
    const deadRows = (count: number) =>
      eventually(`${count} dead rows`, async () => {
        const { n } = await f.source.one<{ n: number }>('SELECT sum(n_dead_tup)::float8 AS n FROM pg_stat_user_tables');
        return n === count;
      });
    // Those that were there before are not the snapshot's doing.
    await f.source.query('UPDATE public.done SET v = v; UPDATE public.left_over SET v = v');
    await deadRows(200);
    await runActivity(f.steps.openSnapshot, [f.m, 0]);
    const first = new MockActivityEnvironment();
    const beats: { fewestDeadTuples?: number }[] = [];
    first.on('heartbeat', (details: { fewestDeadTuples?: number }) => beats.push(details));
    const keeping = runActivity(f.steps.keepSnapshot, [f.m, 0], first).catch(() => undefined);
    const beaten = (fewest: number) =>
      eventually(`a heartbeat with ${fewest} dead rows`, () =>
        Promise.resolve(beats.some(({ fewestDeadTuples }) => fewestDeadTuples === fewest)),
      );
    await beaten(200);
    // … and those that go away make no room for new ones.
    await f.source.query('TRUNCATE public.left_over');
    await beaten(100);
    first.cancel();
    await keeping;
    await f.source.query('UPDATE public.parts SET v = v');
    await deadRows(2100);
    const next = new MockActivityEnvironment({ heartbeatDetails: beats.at(-1) });
    await expect(runActivity(f.steps.keepSnapshot, [f.m, 0], next)).rejects.toMatchObject({
      type: 'SnapshotLost',
      message: expect.stringContaining('2000 dead rows have come since, and the plan allows 1000') as string,
    });
  });

  test('after the seal needs no other', async () => {
    const f = await replicationFixture({ schema: SCHEMA, rows: ROWS, sizes: SIZES });
    closing.push(f.close);
    await runActivity(f.steps.openSnapshot, [f.m, 0]);
    await runActivity(f.steps.planCopy, [f.m, 0]);
    await runActivity(f.steps.copyTables, [f.m, 0, 0]);
    await f.target.query(`UPDATE pgtransit.unit SET state = 'done' WHERE kind = 'key'`);
    await runActivity(f.steps.sealCopy, [f.m, 0]);
    expect(await close(f)).toEqual({ sealed: true, finished: 3, left: 0, ranges: 0 });
    expect(await published(f.source, generationName(f.m.id, 0))).toEqual(['done', 'left_over', 'parts']);
  });
});

describe('the next generation', () => {
  test('says which of its tables is gone from the source, and does without', async () => {
    const f = await halfway();
    await close(f);
    await f.source.query('DROP TABLE public.left_over');
    await runActivity(f.steps.openSnapshot, [f.m, 1]);
    await runActivity(f.steps.planCopy, [f.m, 1]);
    const warnings = await f.target.query<{ message: string }>('SELECT message FROM pgtransit.event WHERE warning');
    expect(warnings.map(({ message }) => message)).toEqual([
      'Table public.left_over was dropped on the source after the start: it is empty on the target.',
    ]);
    expect(await unfinished(f)).not.toContain('public.left_over');
  });

  test('refuses a table that has another name by now, and goes on when it has its own again', async () => {
    const f = await halfway();
    await close(f);
    await f.source.query('ALTER TABLE public.left_over RENAME TO renamed');
    await runActivity(f.steps.openSnapshot, [f.m, 1]);
    await expect(runActivity(f.steps.planCopy, [f.m, 1])).rejects.toMatchObject({
      type: 'SchemaFailed',
      message: 'Table public.left_over was renamed to public.renamed on the source before its rows were copied.',
    });
    await f.source.query('ALTER TABLE public.renamed RENAME TO left_over');
    // The snapshot still has the other name, so there must be another.
    await expect(runActivity(f.steps.planCopy, [f.m, 1])).rejects.toMatchObject({ type: 'SnapshotLost' });
    await close(f, 1);
    await finish(f, 2);
    await expectEqualRows(f);
  });
});
