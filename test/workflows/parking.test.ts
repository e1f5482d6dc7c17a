import { WorkflowFailedError } from '@temporalio/client';
import { expect, test } from 'vitest';
import { readFailure, toApplicationFailure } from '../../src/domain/application-failure.ts';
import type { FailureType } from '../../src/domain/failure.ts';
import { canPark, FAILURES, MigrationError } from '../../src/domain/failure.ts';
import type { ClusterProgress, ClusterReport } from '../../src/domain/progress.ts';
import { eventually, withWorkers } from '../support/workflow-harness.ts';

const ALL = Object.keys(FAILURES) as FailureType[];

test('each type that parks waits for an answer, and goes on with retry', { timeout: 120_000 }, async () => {
  const left = ALL.filter(canPark);
  const copyTables = () => {
    const [type] = left;
    return type === undefined
      ? Promise.resolve({ tables: 1, rows: 1, bytes: 1, current: null })
      : Promise.reject(toApplicationFailure(new MigrationError(type, `It is ${type}.`)));
  };
  await withWorkers({ copyTables }, async ({ start, calls }) => {
    const handle = await start('migrateCluster', { stop: { when: 'caught-up' }, parallelism: { copy: 1 } });
    for (const type of [...left]) {
      const { databases } = await eventually(
        () => handle.query<ClusterProgress>('progress'),
        ({ attention }) => attention?.includes(`It is ${type}.`) === true,
      );
      expect(databases[0]).toMatchObject({ phase: 'copying', answers: ['retry', 'abort'] });
      left.shift();
      await handle.executeUpdate('resolve', { args: [{ action: 'retry' }] });
    }
    expect(((await handle.result()) as ClusterReport).status).toBe('done');
    expect(calls).not.toContain('undo');
  });
});

// Those of a plan or a message never come from a step, and a lost snapshot has a way of its own.
test.each(['SlotLost', 'TooMuchWal'] as const)('%s ends it at once, with everything undone', async (type) => {
  const waitForCatchUp = () => Promise.reject(toApplicationFailure(new MigrationError(type, 'It is gone.')));
  await withWorkers({ waitForCatchUp }, async ({ start, calls }) => {
    const handle = await start('migrateCluster');
    const error: unknown = await handle.result().catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(WorkflowFailedError);
    expect(readFailure((error as WorkflowFailedError).cause).message).toContain('It is gone.');
    expect(calls.at(-1)).toBe('undo');
  });
});
