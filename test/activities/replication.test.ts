/* eslint-disable @typescript-eslint/unbound-method -- steps do not use this */
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, describe, expect, test } from 'vitest';
import { generationName } from '../../src/contract.ts';
import { readLag } from '../../src/postgres/lag.ts';
import { startPostgres } from '../../lab/postgres-server.ts';
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
      const writer = startWriter(f.from.uri(f.m.database), WRITE, 200);
      await eventually('writes', () => Promise.resolve(writer.written() > 100));
      await runActivity(f.steps.waitForGate, [f.m, 0]);
      const atTheGate = writer.written();
      await writer.stop();
      expect(writer.written()).toBeGreaterThanOrEqual(atTheGate);
      const { markLsn } = await runActivity(f.steps.mark, [f.m]);
      await runActivity(f.steps.waitForDrain, [f.m, markLsn]);
      await runActivity(f.steps.disableSubscriptions, [f.m]);
      expect(await countRows(f.target, 'public.t')).toBe(writer.written() + 1);
      expect(await runActivity(f.steps.walAfterMark, [f.m])).toBe(0);
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
    await runActivity(f.steps.syncSequences, [f.m]);
    await writer.stop();
    const { behind } = await f.target.one<{ behind: boolean }>(
      'SELECT (SELECT last_value FROM public.t_id_seq) < (SELECT max(id) FROM public.t) AS behind',
    );
    expect(behind).toBe(false);
    expect(await runActivity(f.steps.walAfterMark, [f.m])).toBeGreaterThan(0);
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

describe('a change that cannot be applied', () => {
  test.each([
    [17, 18],
    [15, 14],
  ])('from %i to %i ends the wait with ApplyFailed', { timeout: 60_000 }, async (source, target) => {
    const f = await streaming({ source, target });
    await f.target.query('INSERT INTO public.t OVERRIDING SYSTEM VALUE VALUES (2, $1)', ['in the way']);
    await f.source.query(WRITE);
    const { markLsn } = await runActivity(f.steps.mark, [f.m]);
    const drain = runInBackground(f.steps.waitForDrain, [f.m, markLsn]);
    const first = await Promise.race([drain.ended, new Promise((resolve) => setTimeout(resolve, 45_000, 'waits'))]);
    drain.cancel();
    expect(first).toMatchObject({ type: 'ApplyFailed' });
  });
});

describe('the subscription', () => {
  test('is not made before the copy is sealed', async () => {
    const f = await replicationFixture({ schema: SCHEMA });
    closing.push(f.close);
    await runActivity(f.steps.openSnapshot, [f.m, 0]);
    await expect(runActivity(f.steps.createSubscription, [f.m])).rejects.toMatchObject({ type: 'NotComplete' });
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
    over.push(await runActivity(f.steps.walAfterMark, [f.m]));
    await runActivity(f.steps.enableSubscriptions, [f.m]);
    await eventually(
      'worker',
      async () => (await f.target.query('SELECT FROM pg_stat_subscription WHERE pid IS NOT NULL')).length > 0,
    );
  }
  expect(over).toEqual([0, 0, 0, 0, 0]);
}, 120_000);

test('a source connection that breaks now and then is no apply failure', async () => {
  const f = await replicationFixture({ schema: SCHEMA });
  closing.push(f.close);
  await f.stream();
  const drain = runInBackground(f.steps.waitForDrain, [f.m, 'FFF/0']);
  for (let i = 0; i < 4; i++) {
    const rows = await countRows(f.source, 'public.t');
    await f.source.query(WRITE);
    for (const end = Date.now() + 15_000; (await countRows(f.target, 'public.t')) < rows + 1 && Date.now() < end;)
      await delay(100);
    await f.source.query(`SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1`, [
      `pgtransit_${f.m.id}_g0`,
    ]);
    await delay(500);
  }
  const first = await Promise.race([drain.ended, delay(1500, 'waits')]);
  drain.cancel();
  expect(first).toBe('waits');
}, 120_000);

test('a fence of a role that may not see when sessions began ends them, or says that it cannot', async () => {
  const server = await startPostgres({ major: 17 });
  closing.push(server.remove);
  await server.psql(
    'postgres',
    'CREATE ROLE mover LOGIN REPLICATION; GRANT pg_signal_backend TO mover; CREATE ROLE app LOGIN',
  );
  const f = await replicationFixture({
    source: server,
    sourceUri: (database) => server.uri(database, { user: 'mover' }),
  });
  closing.push(f.close);
  await f.source.query(`ALTER DATABASE "${f.m.database}" OWNER TO mover; GRANT CREATE, USAGE ON SCHEMA public TO app`);
  const writer = startWriter(server.uri(f.m.database, { user: 'app' }), 'SELECT 1', 20);
  await eventually('the app', () => Promise.resolve(writer.written() > 3));
  const fenced = await runActivity(f.steps.fence, [f.m]).then(
    () => 'fenced',
    (e: unknown) => String(e),
  );
  const left = await f.source.query(`SELECT FROM pg_stat_activity WHERE usename = 'app'`);
  await writer.stop().catch(() => undefined);
  expect(fenced === 'fenced' && left.length > 0).toBe(false);
}, 60_000);
