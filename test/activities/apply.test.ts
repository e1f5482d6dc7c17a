import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, describe, expect, test } from 'vitest';
import { createMeasureActivities } from '../../activities/measure.ts';
import { generationName } from '../../src/contract.ts';
import type { PostgresServer } from '../../lab/postgres-server.ts';
import { startPostgres } from '../../lab/postgres-server.ts';
import { countRows, runActivity } from '../support/copy-fixture.ts';
import type { ReplicationFixture, ReplicationOptions } from '../support/replication-fixture.ts';
import { replicationFixture, runInBackground } from '../support/replication-fixture.ts';

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

/** A failed apply worker is started again at once, and not after 5 s. */
async function impatientTarget(): Promise<PostgresServer> {
  const server = await startPostgres({ major: 18, settings: { wal_retrieve_retry_interval: '200ms' } });
  closing.push(server.remove);
  return server;
}

/** Of a watch that runs: what it ends with, within half a minute. */
async function failureOf(watch: { ended: Promise<unknown>; cancel(): void }): Promise<unknown> {
  const first = await Promise.race([watch.ended, delay(30_000, 'still watches', { ref: false })]);
  watch.cancel();
  return first;
}

describe('a change that cannot be applied is named, and applied once the target is mended', () => {
  const three = ['conflict', 'altered', 'dropped'].map(
    (name) => `CREATE TABLE public.${name} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text)`,
  );
  test.each([
    [17, 18],
    [15, 14],
  ])('from %i to %i', { timeout: 180_000 }, async (source, target) => {
    const f = await streaming({
      source,
      target,
      schema: three.join(';'),
      rows: `INSERT INTO public.conflict (v) VALUES ('x')`,
    });
    const watch = () => runInBackground(f.steps.watchReplication, [f.m]);
    const failsWith = async (break_: () => Promise<unknown>, failure: object): Promise<void> => {
      const watching = watch();
      await break_();
      expect(await failureOf(watching)).toMatchObject({ type: 'ApplyFailed', ...failure });
    };
    const arrives = async (table: string, rows: number): Promise<void> => {
      const watching = watch();
      await expect.poll(() => countRows(f.target, table), { timeout: 20_000 }).toBe(rows);
      expect(await Promise.race([watching.ended, delay(3_000, 'still watches')])).toBe('still watches');
      watching.cancel();
    };

    await f.target.query(`INSERT INTO public.conflict OVERRIDING SYSTEM VALUE VALUES (2, 'in the way')`);
    await failsWith(() => f.source.query(`INSERT INTO public.conflict (v) VALUES ('live')`), {
      message: expect.stringMatching(
        /public\.conflict.*INSERT: duplicate key.*\(Key \(id\)=\(2\) already exists\.\)/,
      ) as string,
      details: { object: 'public.conflict' },
    });
    await f.target.query('DELETE FROM public.conflict WHERE id = 2');
    // Somebody was careful, and is reminded.
    await runActivity(f.steps.disableSubscriptions, [f.m]);
    const enable = `ALTER SUBSCRIPTION "${generationName(f.m.id, 0)}" ENABLE;`;
    await failsWith(() => Promise.resolve(), { details: { next: `${enable} then resolve with retry.` } });
    await f.target.query(enable);
    await arrives('public.conflict', 2);

    await failsWith(
      () =>
        f.source.query(`ALTER TABLE public.altered ADD note text; INSERT INTO public.altered (note) VALUES ('new')`),
      {
        message: expect.stringContaining(
          'column "note" text was added on the source; on the target: ALTER TABLE "public"."altered" ADD COLUMN "note" text;',
        ) as string,
        details: { object: 'public.altered' },
      },
    );
    await f.target.query('ALTER TABLE public.altered ADD note text');
    await arrives('public.altered', 1);

    await f.target.query('DROP TABLE public.dropped');
    const isDropped = {
      message: expect.stringContaining('Table public.dropped was dropped on the target') as string,
      details: { object: 'public.dropped', next: expect.stringContaining('REFRESH PUBLICATION') as string },
    };
    await failsWith(() => f.source.query(`INSERT INTO public.dropped (v) VALUES ('live')`), isDropped);
    await f.target.query(three[2] ?? '');
    // Made anew it is skipped, as if it were applied.
    await failsWith(() => Promise.resolve(), isDropped);
    await f.target.query(`ALTER SUBSCRIPTION pgtransit_${f.m.id}_g0 REFRESH PUBLICATION`);
    await arrives('public.dropped', 1);
    await f.source.query(`INSERT INTO public.dropped (v) VALUES ('later')`);
    await arrives('public.dropped', 2);
  });
});

test('a source connection that breaks now and then is no apply failure', async () => {
  const f = await replicationFixture({ schema: SCHEMA, target: await impatientTarget() });
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

test('a subscription that somebody has dropped ends the wait, and is no wait without end', async () => {
  const f = await streaming();
  const name = generationName(f.m.id, 0);
  for (const sql of ['DISABLE', 'SET (slot_name = NONE)']) await f.target.query(`ALTER SUBSCRIPTION "${name}" ${sql}`);
  await f.target.query(`DROP SUBSCRIPTION "${name}"`);
  await expect(runActivity(f.steps.waitForCatchUp, [f.m])).rejects.toMatchObject({
    type: 'SlotLost',
    message: `Subscription ${name} was dropped on the target, and with it the knowledge of how far it had come.`,
  });
  const { problem } = await runActivity(createMeasureActivities(f.deps).measure, [f.m]);
  expect(problem).toContain(`Subscription ${name} was dropped`);
});
