import type { WorkflowHandle } from '@temporalio/client';
import { expect, test } from 'vitest';
import { toApplicationFailure } from '../../src/domain/application-failure.ts';
import { MigrationError } from '../../src/domain/failure.ts';
import type { ClusterProgress, ClusterReport } from '../../src/domain/progress.ts';
import { eventually, withWorkers } from '../support/workflow-harness.ts';

const PLAN = { stop: { fence: 'read-only' }, reverse: {} };

const progressOf = (handle: WorkflowHandle): Promise<ClusterProgress> => handle.query<ClusterProgress>('progress');
const phaseIs = (phase: string) => (progress: ClusterProgress) =>
  progress.databases.length > 0 && progress.databases.every((database) => database.phase === phase);
const reportOf = async (handle: WorkflowHandle): Promise<ClusterReport> => (await handle.result()) as ClusterReport;
const refusal = (update: Promise<unknown>): Promise<string> =>
  update.then(
    () => 'accepted',
    (error: unknown) => (error as { cause: Error }).cause.message,
  );

async function reversing(handle: WorkflowHandle): Promise<ClusterProgress> {
  await eventually(() => progressOf(handle), phaseIs('streaming'));
  await handle.signal('stopReplication');
  return eventually(() => progressOf(handle), phaseIs('reversing'));
}

test('the source follows from before the target is opened until complete, which is asked for', async () => {
  await withWorkers({}, async ({ start, calls }) => {
    const handle = await start('migrateCluster', PLAN);
    expect(await refusal(handle.executeUpdate('complete'))).toBe('No source follows its target now.');
    const first = await reversing(handle);
    expect([null, 7]).toContain(first.databases[0]?.lagBytes); // not that of the stream that has ended
    for (const [earlier, later] of [
      ['walAfterMark', 'armReverse'],
      ['armReverse', 'dropReplication'],
      ['dropReplication', 'settle'],
    ] as const)
      expect(calls.indexOf(earlier)).toBeLessThan(calls.indexOf(later));
    expect(calls).not.toContain('finish');
    await eventually(
      () => progressOf(handle),
      (p) => p.databases[0]?.lagBytes === 7,
    );
    expect(await refusal(handle.executeUpdate('complete', { args: [{ when: 'now' }] }))).toBe(
      'complete has no field "when".',
    );
    await handle.executeUpdate('complete', { args: [{ database: 'shop' }] });
    const { databases } = await reportOf(handle);
    expect(databases[0]).toMatchObject({ status: 'done', cutover: { fence: 'read-only' } });
    expect(databases[0]?.cutover?.steps.at(-1)?.name).toBe('armReverse');
    expect(calls.slice(calls.indexOf('settle')).filter((name) => !/Reverse$/.test(name))).toEqual(['settle', 'finish']);
    expect(calls).not.toContain('unfence');
  });
});

test('a rollback fences the target, drains, lets writers in on the source, and ends what followed', async () => {
  await withWorkers({}, async ({ start, calls }) => {
    const handle = await start('migrateCluster', PLAN);
    await reversing(handle);
    await handle.executeUpdate('rollback', { args: [{ reason: 'too slow' }] });
    const { status, databases } = await reportOf(handle);
    expect(status).toBe('done');
    expect(databases[0]).toMatchObject({ status: 'rolled-back' });
    expect(databases[0]?.message).toMatch(/went back to the source/);
    const order = ['fenceTarget', 'drainBack', 'closeBack', 'unfence', 'dropReverse', 'finish'];
    expect(calls.filter((name) => order.includes(name))).toEqual(order);
    expect(calls).not.toContain('unfenceTarget');
  });
});

test('a rollback that fails is put back, asks, and can be tried again; so is one that was written around', async () => {
  let outcome: () => Promise<{ bytes: number; tables: string[] }> = () =>
    Promise.reject(toApplicationFailure(new MigrationError('ServerError', 'Sequence public.s is gone.')));
  await withWorkers({ closeBack: () => outcome() }, async ({ start, calls }) => {
    const handle = await start('migrateCluster', PLAN);
    await reversing(handle);
    await handle.signal('rollback', {});
    const parked = (progress: ClusterProgress) => progress.databases.some(({ answers }) => answers.length > 0);
    const first = await eventually(() => progressOf(handle), parked);
    expect(first.attention).toContain(
      'Sequence public.s is gone. The rollback was put back: the target serves, and the source follows it.',
    );
    expect(calls.slice(-2)).toEqual(['enableReverse', 'unfenceTarget']);
    expect(first.databases[0]?.phase).toBe('reversing');
    outcome = () => Promise.resolve({ bytes: 50, tables: ['public.orders'] });
    await handle.executeUpdate('resolve', { args: [{ action: 'retry' }] });
    await eventually(
      () => progressOf(handle),
      (p) => !parked(p),
    );
    await handle.executeUpdate('rollback');
    const second = await eventually(() => progressOf(handle), parked);
    expect(second.attention).toContain(
      'Somebody wrote 50 bytes to database "shop" on the target behind the fence, to public.orders.',
    );
    outcome = () => Promise.resolve({ bytes: 0, tables: [] });
    await handle.executeUpdate('resolve', { args: [{ action: 'retry' }] });
    await eventually(
      () => progressOf(handle),
      (p) => !parked(p),
    );
    await handle.executeUpdate('rollback');
    expect((await reportOf(handle)).databases[0]?.status).toBe('rolled-back');
  });
});

test('a source that cannot follow asks, and complete is taken all the same', async () => {
  const watchReverse = () =>
    Promise.reject(toApplicationFailure(new MigrationError('ReverseFailed', 'The source no longer follows.')));
  await withWorkers({ watchReverse }, async ({ start }) => {
    const handle = await start('migrateCluster', PLAN);
    await reversing(handle);
    const { attention } = await eventually(
      () => progressOf(handle),
      (p) => p.attention !== null,
    );
    expect(attention).toContain('The source no longer follows.');
    await handle.executeUpdate('complete');
    expect((await reportOf(handle)).databases[0]?.status).toBe('done');
  });
});

test('cancelled while the source follows, only that ends: nothing of the migration is undone', async () => {
  await withWorkers({}, async ({ start, calls }) => {
    const handle = await start('migrateCluster', PLAN);
    await reversing(handle);
    await handle.cancel();
    await expect(handle.result()).rejects.toThrow();
    expect(calls.slice(-2)).toEqual(['clearAway', 'finish']);
    expect(calls).not.toContain('undo');
    expect(calls).not.toContain('unfence');
  });
});
