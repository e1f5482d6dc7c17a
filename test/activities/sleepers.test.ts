import { afterEach, describe, expect, test } from 'vitest';
import { applicationName, generationName } from '../../src/contract.ts';
import { openHolder } from '../../src/postgres/snapshot.ts';
import { readSlot } from '../../src/postgres/slot.ts';
import { runActivity } from '../support/copy-fixture.ts';
import type { ReplicationFixture } from '../support/replication-fixture.ts';
import { replicationFixture } from '../support/replication-fixture.ts';

const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

async function fixture(): Promise<ReplicationFixture> {
  const f = await replicationFixture({
    schema: 'CREATE TABLE public.t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY)',
    rows: 'INSERT INTO public.t DEFAULT VALUES',
  });
  closing.push(f.close);
  return f;
}

/** Sessions of a worker that is asleep in the middle of a step. */
const asleep = (f: ReplicationFixture, server: 'source' | 'target') =>
  f.open(server, applicationName(f.m.id, 'control'));

describe('a worker that falls asleep in the middle of a step', () => {
  test('keeps its locks from nobody', async () => {
    const f = await fixture();
    await runActivity(f.steps.openSnapshot, [f.m, 0]);
    const sleeper = await asleep(f, 'target');
    await sleeper.query('BEGIN; SELECT FROM pgtransit.generation FOR UPDATE');
    await runActivity(f.steps.planCopy, [f.m, 0]);
    await expect(sleeper.query('COMMIT')).rejects.toThrow();
  });

  test('sets no sequence back when it wakes up, neither by what it began nor anew', async () => {
    const f = await fixture();
    await f.stream();
    await runActivity(f.steps.disableSubscriptions, [f.m]);
    const sleeper = await asleep(f, 'target');
    await runActivity(f.steps.carryOver, [f.m, null]);
    await expect(sleeper.query(`SELECT setval('public.t_id_seq', 1)`)).rejects.toThrow();
    await runActivity(f.steps.dropReplication, [f.m]);
    await f.target.query('DROP SCHEMA pgtransit CASCADE');
    await expect(runActivity(f.steps.carryOver, [f.m, null])).rejects.toMatchObject({ type: 'AnotherMigration' });
  });

  test('makes no slot when it wakes up after all was undone', async () => {
    const f = await fixture();
    const sleeper = await asleep(f, 'source');
    await runActivity(f.steps.undo, [f.m]);
    const name = generationName(f.m.id, 0);
    const opening = openHolder(sleeper, {
      endpoint: f.endpoints.source,
      database: f.m.database,
      name: applicationName(f.m.id, 'holder'),
      slot: name,
      slotLockTimeoutSeconds: 5,
      signal: new AbortController().signal,
    });
    await expect(opening).rejects.toThrow();
    expect(await readSlot(f.source, name)).toBeNull();
  });
});
