import { afterAll, beforeAll, expect, test } from 'vitest';
import type { TemporalServer } from '../../lab/temporal-server.ts';
import { startTemporalServer } from '../../lab/temporal-server.ts';
import { toApplicationFailure } from '../../src/domain/application-failure.ts';
import { MigrationError } from '../../src/domain/failure.ts';
import type { ClusterProgress, ClusterReport } from '../../src/domain/progress.ts';
import { eventually, withWorkers } from '../support/workflow-harness.ts';

/** A child has about this many events when it begins to stream, so it goes on afresh at once. */
const FEW_EVENTS = '60';

let server: TemporalServer;

beforeAll(async () => {
  server = await startTemporalServer({ dynamicConfig: { 'limit.historyCount.suggestContinueAsNew': FEW_EVENTS } });
});

afterAll(() => server.stop());

test('a database that streams for long goes on with a fresh history, and nothing of it is forgotten', async () => {
  await withWorkers(
    {},
    async ({ start, client, workflowId, calls }) => {
      const handle = await start('migrateCluster');
      const child = client.workflow.getHandle(`${workflowId}/shop`);
      await eventually(
        () => child.describe().catch(() => null),
        (found) => found !== null && found.raw.workflowExecutionInfo?.firstRunId !== found.runId,
      );
      await eventually(
        () => handle.query<ClusterProgress>('progress'),
        (progress) => progress.databases.every(({ phase }) => phase === 'streaming') && progress.databases.length > 0,
      );
      await handle.signal('stopReplication');
      const report = (await handle.result()) as ClusterReport;
      expect(report.databases[0]).toMatchObject({ status: 'done', rows: 10 });
      expect(Object.keys(report.databases[0]?.seconds ?? {})).toContain('copying');
      for (const once of ['createDatabase', 'openSnapshot', 'createSubscription', 'mark', 'finish'])
        expect(calls.filter((name) => name === once)).toHaveLength(1);
      expect(calls).not.toContain('undo');
    },
    undefined,
    server.address,
  );
});

test('generations, a stop that was put back and its question survive, several times in a row', async () => {
  let losses = 0;
  const openSnapshot = () => Promise.resolve({ consistentPoint: '0/1' });
  const planCopy = () =>
    (losses += 1) === 1
      ? Promise.reject(toApplicationFailure(new MigrationError('SnapshotLost', 'It was lost.')))
      : Promise.resolve({ tables: 2, bytes: 1000, units: 2, indexes: 1 });
  let broken = true;
  const carryOver = () =>
    broken
      ? Promise.reject(toApplicationFailure(new MigrationError('ServerError', 'No space left.')))
      : Promise.resolve({ sequences: 1, largeObjects: 0, unloggedTables: 0 });
  await withWorkers(
    { openSnapshot, planCopy, carryOver },
    async ({ start, client, workflowId, calls }) => {
      const handle = await start('migrateCluster');
      // Before its database was started, so that it is part of that one's input.
      await handle.signal('stopReplication');
      const child = client.workflow.getHandle(`${workflowId}/shop`);
      const run = async (): Promise<string> => (await child.describe()).runId;
      const ask = () => handle.query<ClusterProgress>('progress');
      const parked = await eventually(ask, ({ attention }) => attention?.includes('No space left.') === true);
      expect(parked.databases[0]).toMatchObject({ phase: 'streaming', generations: 2, answers: ['retry', 'abort'] });
      // Its history is long enough for a fresh one by now, but there is a question.
      const asked = await run();
      broken = false;
      await handle.executeUpdate('resolve', { args: [{ action: 'retry' }] });

      const runs = new Set([asked]);
      const later = async (): Promise<void> => {
        // An answer to nothing: four events of the history.
        await child.signal('resolve', { action: 'retry' });
        runs.add(await run());
      };
      await eventually(later, () => runs.size > 3, 60_000);
      const progress = await child.query<{ phase: string; generations: number }>('progress');
      expect(progress).toMatchObject({ phase: 'streaming', generations: 2, attention: null });
      expect(calls.filter((name) => name === 'mark')).toHaveLength(1);

      await handle.signal('stopReplication');
      const report = (await handle.result()) as ClusterReport;
      expect(report.databases[0]).toMatchObject({ status: 'done', generations: 2 });
      expect(report.databases[0]?.warnings.join()).toContain('It was lost.');
      expect(calls.filter((name) => name === 'mark')).toHaveLength(2);
      expect(calls).not.toContain('undo');
    },
    undefined,
    server.address,
  );
});
