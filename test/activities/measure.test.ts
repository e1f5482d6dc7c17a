import { afterEach, describe, expect, test } from 'vitest';
import { createMeasureActivities } from '../../activities/measure.ts';
import type { ActivityDeps } from '../../activities/context.ts';
import type { Measurement } from '../../src/domain/migration.ts';
import { eventually, runActivity } from '../support/copy-fixture.ts';
import type { ReplicationFixture } from '../support/replication-fixture.ts';
import { replicationFixture } from '../support/replication-fixture.ts';

const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

async function fixture(): Promise<ReplicationFixture> {
  const f = await replicationFixture({ schema: 'CREATE TABLE public.t (id int PRIMARY KEY)' });
  closing.push(f.close);
  return f;
}

/** `unreachable`: where nothing listens. */
function measure(f: ReplicationFixture, unreachable?: 'source' | 'target'): Promise<Measurement> {
  const endpoint: ActivityDeps['endpoint'] = (reference, server) =>
    server === unreachable ? { server, info: { host: '127.0.0.1', port: '1' } } : f.deps.endpoint(reference, server);
  return runActivity(createMeasureActivities({ ...f.deps, endpoint }).measure, [f.m]);
}

describe('the WAL that a slot keeps on the source is measured', () => {
  const filler = `CREATE TABLE IF NOT EXISTS public.filler (t text);
    INSERT INTO public.filler SELECT repeat('x', 1000) FROM generate_series(1, 2000); TRUNCATE public.filler`;

  test('while the target does not answer', async () => {
    const f = await fixture();
    await f.stream();
    await runActivity(f.steps.disableSubscriptions, [f.m]);
    await f.source.query(filler);
    const measured = await measure(f, 'target');
    expect(measured.retainedBytes).toBeGreaterThan(2_000_000);
    expect(measured.problem).toContain('on the target: connect ECONNREFUSED');
    expect(measured).not.toHaveProperty('tables');
  });

  test('while the source does not answer, what the target knows is told', async () => {
    const f = await fixture();
    await f.stream();
    const measured = await measure(f, 'source');
    expect(measured).toMatchObject({ retainedBytes: null, lagBytes: null, tables: { total: 1 } });
    expect(measured.problem).toContain('on the source: connect ECONNREFUSED');
  });

  test('while it is being made, before the ledger knows it', async () => {
    const f = await fixture();
    const blocker = await f.open('source');
    await blocker.query('BEGIN');
    await blocker.query('SELECT pg_current_xact_id()');
    const opening = runActivity(f.steps.openSnapshot, [f.m, 0]);
    await eventually('a slot', async () => (await measure(f)).retainedBytes !== null);
    await f.source.query(filler);
    expect((await measure(f)).retainedBytes).toBeGreaterThan(2_000_000);
    await blocker.query('ROLLBACK');
    await opening;
  });
});
