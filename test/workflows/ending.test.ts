import type { WorkflowHandle } from '@temporalio/client';
import { describe, expect, test } from 'vitest';
import type { Activities } from '../../activities/index.ts';
import { readFailure, toApplicationFailure } from '../../src/domain/application-failure.ts';
import { MigrationError } from '../../src/domain/failure.ts';
import type { ClusterProgress, ClusterReport, DatabaseProgress } from '../../src/domain/progress.ts';
import type { Harness } from '../support/workflow-harness.ts';
import { eventually, untilCancelled, withWorkers } from '../support/workflow-harness.ts';

const FENCED = { stop: { fence: 'read-only' } };
const AWAITED = { stop: { fence: 'read-only', awaitSwitch: true } };
const BOUNCED = { stop: { fence: 'pgbouncer', pgbouncer: 'env:PGBOUNCER' } };

const progressOf = (handle: WorkflowHandle): Promise<ClusterProgress> => handle.query<ClusterProgress>('progress');
const inPhase = (phase: string) => (progress: ClusterProgress) =>
  progress.databases.length > 0 && progress.databases.every((database) => database.phase === phase);
const waitsFor = (word: string) => (progress: ClusterProgress) =>
  progress.databases.some((database) => database.waitsFor === word);
const isParked = (progress: ClusterProgress) => progress.databases.some(({ answers }) => answers.length > 0);

/** Until the target can be written to, and further. */
async function cutOver({ start }: Harness, plan: object): Promise<WorkflowHandle> {
  const handle = await start('migrateCluster', plan);
  await eventually(() => progressOf(handle), inPhase('streaming'));
  await handle.signal('stopReplication');
  return handle;
}

const called = ({ calls }: Harness, name: keyof Activities): Promise<unknown> =>
  eventually(
    () => Promise.resolve(calls),
    (all) => all.includes(name),
  );

/** What the database says when the whole migration was cancelled; its parent has heard of it. */
async function cancelled(handle: WorkflowHandle, { client, workflowId }: Harness): Promise<string> {
  await handle.cancel();
  await expect(handle.result()).rejects.toThrow();
  expect((await handle.describe()).status.name).toBe('CANCELLED');
  const { message } = await client.workflow.getHandle(`${workflowId}/shop`).query<DatabaseProgress>('progress');
  expect((await progressOf(handle)).databases).toMatchObject([{ phase: 'cancelled', message }]);
  return message;
}

/** How long each run of this step may be tried for; 0: without end. */
async function secondsFor(name: keyof Activities, { client, workflowId }: Harness): Promise<number[]> {
  const { events } = await client.workflow.getHandle(`${workflowId}/shop`).fetchHistory();
  return (events ?? [])
    .map(({ activityTaskScheduledEventAttributes }) => activityTaskScheduledEventAttributes)
    .filter((scheduled) => scheduled?.activityType?.name === name)
    .map((scheduled) => Number(scheduled?.scheduleToCloseTimeout?.seconds ?? 0));
}

async function failureOf(handle: WorkflowHandle): Promise<{ type: string; message: string; report: ClusterReport }> {
  const error = await handle.result().then(
    () => null,
    (failed: unknown) => failed as Error,
  );
  const { cause } = error as { cause: Error & { details: [unknown, ClusterReport] } };
  const { type, message } = readFailure(cause);
  return { type, message, report: cause.details[1] };
}

const fails = (message: string) => () =>
  Promise.reject(toApplicationFailure(new MigrationError('ServerError', message)));

/** Hangs the first time. */
function hangsOnce<T>(then: T): () => Promise<T> {
  let isFirst = true;
  return () => {
    if (!isFirst) return Promise.resolve(then);
    isFirst = false;
    return untilCancelled();
  };
}

describe('once the target serves', () => {
  test('a cancel keeps the fence on the source, and clears away what is left', async () => {
    await withWorkers({ finish: hangsOnce({ warnings: [] }) }, async (harness) => {
      const handle = await cutOver(harness, FENCED);
      await called(harness, 'finish');
      const said = await cancelled(handle, harness);
      expect(said).toBe('The target serves. The source is still read-only.');
      expect(harness.calls.slice(-2)).toEqual(['clearAway', 'finish']);
      expect(harness.calls).not.toContain('undo');
      expect(harness.calls).not.toContain('unfence');
      // So that an old server that is gone for good does not keep the workflow open.
      expect(await secondsFor('finish', harness)).toEqual([0, 3600]);
    });
  });

  test('a failure does the same, and the report says who serves', async () => {
    await withWorkers({ dropReplication: fails('The role may not drop it.') }, async (harness) => {
      const handle = await cutOver(harness, { ...FENCED, onError: 'fail' });
      const { type, report } = await failureOf(handle);
      expect(type).toBe('DatabasesFailed');
      expect(report.databases[0]?.message).toBe(
        'The role may not drop it. The target serves. The source is still read-only.',
      );
      expect(report.databases[0]?.warnings).toEqual([]);
      expect(harness.calls).not.toContain('undo');
      expect(harness.calls).not.toContain('unfence');
    });
  });

  test('a cancel says how clients are let in on a source that is locked', async () => {
    const warning = 'On the source nobody may connect to the database any more. To let them in again: GRANT …';
    const readReport = () => Promise.resolve({ tables: 1, rows: 1, bytes: 1, warnings: ['Another one.', warning] });
    await withWorkers({ readReport, finish: hangsOnce({ warnings: [] }) }, async (harness) => {
      const handle = await cutOver(harness, { stop: { fence: 'lock-out' } });
      await called(harness, 'finish');
      expect(await cancelled(handle, harness)).toBe(`The target serves. ${warning}`);
      expect(harness.calls.slice(-3)).toEqual(['readReport', 'clearAway', 'finish']);
    });
  });

  test('it stays so also while somebody leads the clients over', async () => {
    await withWorkers({}, async (harness) => {
      const handle = await cutOver(harness, AWAITED);
      await eventually(() => progressOf(handle), waitsFor('switched'));
      expect(await cancelled(handle, harness)).toBe('The target serves. The source is still read-only.');
      expect(harness.calls.slice(-2)).toEqual(['clearAway', 'finish']);
      expect(harness.calls).not.toContain('undo');
    });
  });

  test('clients that PgBouncer holds are let go, wherever it leads them', async () => {
    await withWorkers({ resumeClients: fails('PgBouncer still leads to the source.') }, async (harness) => {
      const handle = await cutOver(harness, BOUNCED);
      await eventually(() => progressOf(handle), waitsFor('switched'));
      await handle.executeUpdate('switched', { args: [{ by: 'ann' }] });
      await eventually(() => progressOf(handle), isParked);
      await handle.executeUpdate('resolve', { args: [{ action: 'abort' }] });
      const { report } = await failureOf(handle);
      expect(report.databases[0]?.message).toContain(
        'The target has everything, and the clients go on where PgBouncer',
      );
      expect(harness.calls.slice(-3)).toEqual(['unfence', 'clearAway', 'finish']);
      expect(harness.calls).not.toContain('undo');
    });
  });
});

test('after a rollback has drained, writers are let in on the source whatever happens', async () => {
  let isFirst = true;
  const unfence = () => {
    if (!isFirst) return Promise.resolve();
    isFirst = false;
    return fails('The role may not alter it.')();
  };
  await withWorkers({ unfence }, async (harness) => {
    const handle = await cutOver(harness, { ...FENCED, reverse: {} });
    await eventually(() => progressOf(handle), inPhase('reversing'));
    await handle.executeUpdate('rollback');
    await eventually(() => progressOf(handle), isParked);
    await handle.executeUpdate('resolve', { args: [{ action: 'abort' }] });
    const { report } = await failureOf(handle);
    expect(report.databases[0]?.message).toContain(
      'The source serves again, with everything that was written to the target.',
    );
    expect(harness.calls.slice(-3)).toEqual(['unfence', 'clearAway', 'finish']);
  });
});

test('a cancel that could not be undone is a failure, which says what is left', async () => {
  const undo = (({ database }: { database: string }) =>
    database === 'b' ? fails('The role may not drop the slot.')() : Promise.resolve()) as unknown as Activities['undo'];
  await withWorkers(
    { undo },
    async ({ start }) => {
      const handle = await start('migrateCluster');
      await eventually(() => progressOf(handle), inPhase('streaming'));
      await handle.cancel();
      const { type, message } = await failureOf(handle);
      expect(type).toBe('NotUndone');
      expect(message).toContain(
        'b: Cancelled. Not everything could be undone: Could not undo everything on both servers: The role may not drop the slot.',
      );
      expect(message).not.toContain('a: ');
      expect((await progressOf(handle)).databases.map(({ phase }) => phase)).toEqual(['cancelled', 'failed']);
    },
    ['a', 'b'],
  );
});
