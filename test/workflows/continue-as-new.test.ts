import { expect, test } from 'vitest';
import { startTemporalServer } from '../../lab/temporal-server.ts';
import type { ClusterProgress, ClusterReport } from '../../src/domain/progress.ts';
import { eventually, withWorkers } from '../support/workflow-harness.ts';

/** A child has about this many events when it begins to stream, so it goes on afresh at once. */
const FEW_EVENTS = '60';

test('a database that streams for long goes on with a fresh history, and nothing of it is forgotten', async () => {
  const server = await startTemporalServer({
    dynamicConfig: { 'limit.historyCount.suggestContinueAsNew': FEW_EVENTS },
  });
  try {
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
  } finally {
    await server.stop();
  }
});
