import { afterEach, expect, test } from 'vitest';
import { createMeasureActivities } from '../../activities/measure.ts';
import { runActivity } from '../support/copy-fixture.ts';
import type { ReplicationFixture } from '../support/replication-fixture.ts';
import { replicationFixture, startWriter } from '../support/replication-fixture.ts';

const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

/** A database in which nobody writes, on a server where others do all the time. */
async function idleAmongBusy(): Promise<ReplicationFixture> {
  const f = await replicationFixture({ schema: 'CREATE TABLE public.t (id int PRIMARY KEY)' });
  closing.push(f.close);
  await f.stream();
  const noise = `SELECT pg_logical_emit_message(true, 'noise', repeat('x', 20000)) FROM generate_series(1, 10)`;
  const writer = startWriter(f.from.uri('postgres'), noise, 50);
  closing.push(writer.stop);
  await expect.poll(writer.written, { timeout: 20_000 }).toBeGreaterThan(100);
  return f;
}

// The walsender passes over what others write, and tells the target how far it is: no message of ours is needed for that.
test('an idle database on a busy server does not look as if it lagged, and its gate opens', async () => {
  const f = await idleAmongBusy();
  const { measure } = createMeasureActivities(f.deps);
  for (let n = 0; n < 3; n++) expect((await runActivity(measure, [f.m])).lagBytes).toBeLessThan(5_000_000);
  const begin = performance.now();
  await runActivity(f.steps.waitForGate, [f.m, 0]);
  expect(performance.now() - begin).toBeLessThan(10_000);
}, 60_000);
