import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, describe, expect, test } from 'vitest';
import { generationName } from '../../src/contract.ts';
import { readLag } from '../../src/postgres/lag.ts';
import { connect } from '../../src/postgres/connection.ts';
import { freeSlot, readSlot } from '../../src/postgres/slot.ts';
import { countRows, eventually, runActivity } from '../support/copy-fixture.ts';
import type { ReplicationFixture, ReplicationOptions } from '../support/replication-fixture.ts';
import { replicationFixture, runInBackground, startWriter } from '../support/replication-fixture.ts';

const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

const SCHEMA = 'CREATE TABLE public.t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text)';
const WRITE = "INSERT INTO public.t (v) VALUES ('live')";

async function streaming(options: ReplicationOptions = {}): Promise<ReplicationFixture> {
  const f = await replicationFixture({ schema: SCHEMA, rows: WRITE, ...options });
  closing.push(f.close);
  await f.stream();
  return f;
}

const seconds = async (work: () => Promise<unknown>): Promise<number> => {
  const began = performance.now();
  await work();
  return (performance.now() - began) / 1000;
};

describe('a stop', () => {
  test.each([
    [17, 18],
    [14, 18],
    [15, 17],
  ])(
    'from %i to %i opens its gate at 0 bytes while the application writes, and loses nothing',
    async (source, target) => {
      const f = await streaming({ source, target });
      const writers = [1, 2, 3].map(() => startWriter(f.from.uri(f.m.database), WRITE, 100));
      const written = () => writers.reduce((sum, writer) => sum + writer.written(), 0);
      await eventually('writes', () => Promise.resolve(written() > 100));
      const before = written();
      await runActivity(f.steps.waitForGate, [f.m, 0]);
      expect(written()).toBeGreaterThan(before);
      await Promise.all(writers.map((writer) => writer.stop()));
      const { markLsn } = await runActivity(f.steps.mark, [f.m]);
      await runActivity(f.steps.waitForDrain, [f.m, markLsn]);
      await runActivity(f.steps.disableSubscriptions, [f.m]);
      expect(await countRows(f.target, 'public.t')).toBe(written() + 1);
      expect((await runActivity(f.steps.walAfterMark, [f.m])).bytes).toBe(0);
      await runActivity(f.steps.dropReplication, [f.m]);
      await runActivity(f.steps.dropReplication, [f.m]);
      expect(await f.leftovers()).toEqual(['schema']);
    },
  );

  test('of a quiet source marks and drains at once', async () => {
    const f = await streaming();
    expect(
      await seconds(async () => {
        const { markLsn } = await runActivity(f.steps.mark, [f.m]);
        await runActivity(f.steps.waitForDrain, [f.m, markLsn]);
      }),
    ).toBeLessThan(2);
  });

  test('leaves no sequence behind the rows when the application goes on writing', async () => {
    const f = await streaming();
    const writer = startWriter(f.from.uri(f.m.database), WRITE, 300);
    await eventually('writes', () => Promise.resolve(writer.written() > 100));
    await runActivity(f.steps.waitForGate, [f.m, 0]);
    const { markLsn } = await runActivity(f.steps.mark, [f.m]);
    await runActivity(f.steps.waitForDrain, [f.m, markLsn]);
    await runActivity(f.steps.disableSubscriptions, [f.m]);
    await runActivity(f.steps.carryOver, [f.m, null]);
    await writer.stop();
    const { behind } = await f.target.one<{ behind: boolean }>(
      'SELECT (SELECT last_value FROM public.t_id_seq) < (SELECT max(id) FROM public.t) AS behind',
    );
    expect(behind).toBe(false);
    expect((await runActivity(f.steps.walAfterMark, [f.m])).bytes).toBeGreaterThan(0);
  });

  test('counts a row that was written after it, and nothing else', async () => {
    const f = await streaming();
    await runActivity(f.steps.disableSubscriptions, [f.m]);
    expect((await runActivity(f.steps.walAfterMark, [f.m])).bytes).toBe(0);
    await f.source.query('CREATE TABLE public.unpublished AS SELECT generate_series(1, 100)');
    expect((await runActivity(f.steps.walAfterMark, [f.m])).bytes).toBe(0);
    await f.source.query(WRITE);
    const { bytes } = await runActivity(f.steps.walAfterMark, [f.m]);
    expect(bytes).toBeGreaterThan(0);
    expect(bytes).toBeLessThan(200);
    expect((await runActivity(f.steps.walAfterMark, [f.m])).bytes).toBe(bytes);
  });

  test('waits for what the target has received and not applied', async () => {
    const f = await streaming();
    const lock = await f.open('target');
    await lock.query('BEGIN; LOCK TABLE public.t IN ACCESS EXCLUSIVE MODE');
    await f.source.query(WRITE);
    const { markLsn } = await runActivity(f.steps.mark, [f.m]);
    const drain = runInBackground(f.steps.waitForDrain, [f.m, markLsn]);
    expect(await Promise.race([drain.ended, delay(3_000, 'waits')])).toBe('waits');
    await lock.query('ROLLBACK');
    await drain.ended;
    expect(await countRows(f.target, 'public.t')).toBe(2);
  });

  test('ends an apply worker that waits for a lock, and counts what it had in hand', async () => {
    const f = await streaming();
    const lock = await f.open('target');
    await lock.query('BEGIN; LOCK TABLE public.t IN ACCESS EXCLUSIVE MODE');
    await f.source.query(WRITE);
    await eventually('the worker waiting', async () => {
      const rows = await f.target.query('SELECT FROM pg_locks WHERE relation = $1::regclass AND NOT granted', [
        'public.t',
      ]);
      return rows.length > 0;
    });
    const disabling = runInBackground(f.steps.disableSubscriptions, [f.m]);
    expect(await Promise.race([disabling.ended, delay(15_000, 'waits')])).toBeUndefined();
    await lock.query('ROLLBACK');
    expect(await countRows(f.target, 'public.t')).toBe(1);
    expect((await runActivity(f.steps.walAfterMark, [f.m])).bytes).toBeGreaterThan(0);
  });

  test('ends a walsender that nobody reads from any more', async () => {
    const f = await streaming();
    await runActivity(f.steps.disableSubscriptions, [f.m]);
    const name = generationName(f.m.id, 0);
    await freeSlot(f.source, name);
    const reader = await connect(f.endpoints.source, { applicationName: 'test', replication: true });
    reader.client
      .query(`START_REPLICATION SLOT "${name}" LOGICAL 0/0 (proto_version '1', publication_names '"${name}"')`)
      .catch(() => undefined);
    await eventually('the slot in use', async () => (await readSlot(f.source, name))?.active === true);
    const looking = runInBackground(f.steps.walAfterMark, [f.m]);
    expect(await Promise.race([looking.ended, delay(15_000, 'waits')])).toMatchObject({ bytes: 0 });
    expect((await readSlot(f.source, name))?.active).toBe(false);
    reader.destroy();
  });

  test('that is put back goes on replicating', async () => {
    const f = await streaming();
    await runActivity(f.steps.disableSubscriptions, [f.m]);
    await f.source.query(WRITE);
    await runActivity(f.steps.enableSubscriptions, [f.m]);
    await eventually('the change', async () => (await countRows(f.target, 'public.t')) === 2);
  });
});

describe('the gate', () => {
  test('waits for a prepared transaction, and says so', async () => {
    const f = await streaming();
    await f.source.query("BEGIN; INSERT INTO public.t (v) VALUES ('later'); PREPARE TRANSACTION 'later'");
    const gate = runInBackground(f.steps.waitForGate, [f.m, 0]);
    const first = await Promise.race([gate.ended, new Promise((resolve) => setTimeout(resolve, 3_000, 'closed'))]);
    await f.source.query("COMMIT PREPARED 'later'");
    expect(first).toBe('closed');
    expect(await gate.ended).toBeUndefined();
  });

  test('opens when it allows more than was ever written', async () => {
    const f = await streaming();
    await runActivity(f.steps.waitForGate, [f.m, Number.MAX_SAFE_INTEGER]);
  });

  test.each([
    ['DROP TABLE public.t', 17, 18],
    ['DROP TABLE public.t', 18, 17],
    ["SET (publish = 'insert')", 17, 18],
  ])('stays shut after ALTER PUBLICATION … %s from %i to %i', async (change, source, target) => {
    const f = await streaming({ source, target });
    await f.source.query(`ALTER PUBLICATION ${generationName(f.m.id, 0)} ${change}`);
    const lost = { type: 'SlotLost', details: { object: 'public.t' } };
    await expect(runActivity(f.steps.waitForGate, [f.m, 0])).rejects.toMatchObject(lost);
    const { markLsn } = await runActivity(f.steps.mark, [f.m]);
    await expect(runActivity(f.steps.waitForDrain, [f.m, markLsn])).rejects.toMatchObject(lost);
  });

  test('books a table that was created after the start as a warning, and opens', async () => {
    const f = await streaming();
    await f.source.query('CREATE TABLE public.late (id int PRIMARY KEY)');
    await runActivity(f.steps.waitForGate, [f.m, 0]);
    const warnings = await f.target.query<{ message: string }>('SELECT message FROM pgtransit.event WHERE warning');
    expect(warnings.map(({ message }) => message).join()).toContain('public.late');
  });

  test('does not wait for ever for a slot that is gone', { timeout: 30_000 }, async () => {
    const f = await streaming();
    const name = generationName(f.m.id, 0);
    await runActivity(f.steps.disableSubscriptions, [f.m]);
    await eventually('the slot free', async () => {
      const rows = await f.source.query('SELECT FROM pg_replication_slots WHERE slot_name = $1 AND NOT active', [name]);
      return rows.length > 0;
    });
    await f.source.query('SELECT pg_drop_replication_slot($1)', [name]);
    await runActivity(f.steps.enableSubscriptions, [f.m]);
    const gate = runInBackground(f.steps.waitForGate, [f.m, 0]);
    const first = await Promise.race([gate.ended, new Promise((resolve) => setTimeout(resolve, 8_000, 'waits'))]);
    gate.cancel();
    expect(first).toMatchObject({ type: 'SlotLost' });
  });
});

describe('the subscription', () => {
  test('is not made before the copy is sealed', async () => {
    const f = await replicationFixture({ schema: SCHEMA });
    closing.push(f.close);
    await runActivity(f.steps.openSnapshot, [f.m, 0]);
    await expect(runActivity(f.steps.createSubscription, [f.m])).rejects.toMatchObject({ type: 'NotComplete' });
  });

  test('is not made from a slot that begins after the snapshot', async () => {
    const f = await replicationFixture({ schema: SCHEMA });
    closing.push(f.close);
    await runActivity(f.steps.openSnapshot, [f.m, 0]);
    await f.copy();
    await f.source.query(`${WRITE}; SELECT pg_drop_replication_slot('${generationName(f.m.id, 0)}')`);
    await f.source.query(`SELECT pg_create_logical_replication_slot('${generationName(f.m.id, 0)}', 'pgoutput')`);
    await expect(runActivity(f.steps.createSubscription, [f.m])).rejects.toMatchObject({ type: 'SlotLost' });
    expect(await f.leftovers()).not.toContain(`subscription ${generationName(f.m.id, 0)}`);
  });

  test('made a second time is the same one', async () => {
    const f = await streaming();
    const oid = () => f.target.one('SELECT oid FROM pg_subscription WHERE subname = $1', [generationName(f.m.id, 0)]);
    const before = await oid();
    await runActivity(f.steps.createSubscription, [f.m]);
    expect(await oid()).toEqual(before);
  });
});

test('the lag is measured without writing', async () => {
  const f = await streaming();
  const names = [generationName(f.m.id, 0)];
  await eventually('no lag', async () => (await readLag(f.source, f.target, names)).lagBytes === 0);
  await runActivity(f.steps.disableSubscriptions, [f.m]);
  await f.source.query(WRITE);
  await eventually('lag', async () => ((await readLag(f.source, f.target, names)).lagBytes ?? 0) > 0);
  expect((await readLag(f.source, f.target, names)).problem).toBeNull();
  await freeSlot(f.source, generationName(f.m.id, 0));
  await f.source.query('SELECT pg_drop_replication_slot($1)', names);
  expect((await readLag(f.source, f.target, names)).problem).toContain(generationName(f.m.id, 0));
});

test('what the target has already applied is not counted as written after the mark', async () => {
  const f = await replicationFixture({ schema: SCHEMA });
  closing.push(f.close);
  await f.stream();
  const over: number[] = [];
  for (let round = 0; round < 5; round++) {
    const writer = startWriter(f.from.uri(f.m.database), WRITE, 300);
    await eventually('writes', () => Promise.resolve(writer.written() > 100));
    const { markLsn } = await runActivity(f.steps.mark, [f.m]);
    await runActivity(f.steps.waitForDrain, [f.m, markLsn]);
    await writer.stop();
    const all = await countRows(f.source, 'public.t');
    await eventually('all applied', async () => (await countRows(f.target, 'public.t')) === all);
    await runActivity(f.steps.disableSubscriptions, [f.m]);
    over.push((await runActivity(f.steps.walAfterMark, [f.m])).bytes);
    await runActivity(f.steps.enableSubscriptions, [f.m]);
    await eventually(
      'worker',
      async () => (await f.target.query('SELECT FROM pg_stat_subscription WHERE pid IS NOT NULL')).length > 0,
    );
  }
  expect(over).toEqual([0, 0, 0, 0, 0]);
}, 120_000);
