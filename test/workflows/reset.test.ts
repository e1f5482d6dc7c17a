import { WorkflowFailedError } from '@temporalio/client';
import { expect, test } from 'vitest';
import { readFailure, toApplicationFailure } from '../../src/domain/application-failure.ts';
import { MigrationError } from '../../src/domain/failure.ts';
import type { ClusterProgress, ClusterReport, DatabaseReport } from '../../src/domain/progress.ts';
import { reset } from '../support/temporal-cli.ts';
import { eventually, withWorkers } from '../support/workflow-harness.ts';

const streaming = ({ databases }: ClusterProgress): boolean =>
  databases.length > 0 && databases.every(({ phase }) => phase === 'streaming');

test('the parent hears what a database does after its reset, and resolves it; the stop from before is still asked for', async () => {
  let broken = false;
  const carryOver = () =>
    broken
      ? Promise.reject(toApplicationFailure(new MigrationError('ServerError', 'No space left.')))
      : Promise.resolve({ sequences: 1, largeObjects: 0, unloggedTables: 0 });
  const createSubscription = () =>
    broken
      ? Promise.reject(toApplicationFailure(new MigrationError('PrivilegeMissing', 'It may not subscribe.')))
      : Promise.resolve();
  await withWorkers({ carryOver, createSubscription }, async ({ start, workflowId, calls }) => {
    const handle = await start('migrateCluster');
    await eventually(() => handle.query<ClusterProgress>('progress'), streaming);
    broken = true;
    await handle.signal('stopReplication');
    const ask = () => handle.query<ClusterProgress>('progress');
    await eventually(ask, ({ attention }) => attention?.includes('No space left.') === true);
    await reset(`${workflowId}/shop`, 'createSubscription');
    const parked = await eventually(ask, ({ attention }) => attention?.includes('It may not subscribe.') === true);
    expect(parked.databases[0]?.phase).toBe('subscribing');
    broken = false;
    await handle.executeUpdate('resolve', { args: [{ action: 'retry' }] });
    const report = (await handle.result()) as ClusterReport;
    expect(report.databases[0]).toMatchObject({ status: 'done', rows: 10 });
    expect(calls).not.toContain('undo');
  });
});

test('a parent that is reset to before its databases fails, and they go on and can be stopped one by one', async () => {
  await withWorkers({}, async ({ start, client, workflowId, calls }) => {
    const first = await start('migrateCluster');
    await eventually(() => first.query<ClusterProgress>('progress'), streaming);
    await reset(workflowId, 'FirstWorkflowTask');
    const error: unknown = await client.workflow
      .getHandle(workflowId)
      .result()
      .catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(WorkflowFailedError);
    expect(readFailure((error as WorkflowFailedError).cause)).toMatchObject({
      type: 'AnotherMigration',
      message: `An earlier run of this workflow has started "${workflowId}/shop", which goes on.`,
    });
    const child = client.workflow.getHandle(`${workflowId}/shop`);
    await child.signal('stopReplication', {});
    expect((await child.result()) as DatabaseReport).toMatchObject({ database: 'shop', status: 'done' });
    expect(calls).not.toContain('undo');
  });
});
