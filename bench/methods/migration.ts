import { setTimeout as delay } from 'node:timers/promises';
import type { WorkflowHandle } from '@temporalio/client';
import { Client, Connection, WorkflowFailedError } from '@temporalio/client';
import type { ClusterProgress, ClusterReport, DatabaseReport } from '../../src/domain/progress.ts';
import { startTemporalServer } from '../../lab/temporal-server.ts';
import { DEFAULT_TASK_QUEUE, MESSAGE, WORKFLOW } from '../../src/contract.ts';
import { peakMemoryBytes, processCpuSeconds } from '../cpu.ts';
import { startWorkerProcess } from '../../lab/worker-process.ts';
import { planOf, serverUris } from './engine.ts';
import type { Method, Outcome, Task } from './method.ts';
import { Stopwatch } from './method.ts';

/** Each look is a workflow task for the worker that is measured. */
const POLL_MS = 250;

/** As a user runs it: a Temporal server, a worker process that waits for work, one workflow that is started. */
function migrationMethod(title: string, method: 'dump' | 'replication'): Method {
  return {
    title,
    createsDatabase: true,
    missing: () => null,
    async run(task, check) {
      const temporal = await startTemporalServer();
      const worker = await startWorkerProcess({ ...serverUris(task), TEMPORAL_ADDRESS: temporal.address });
      const connection = await Connection.connect({ address: temporal.address });
      try {
        const client = new Client({ connection });
        return await measure(task, method, client, worker.pid, check);
      } finally {
        await connection.close();
        await worker.stop();
        await temporal.stop();
      }
    },
  };
}

export const dump = migrationMethod('pgtransit, method dump: whole migration with Temporal', 'dump');

export const replication = migrationMethod(
  'pgtransit, method replication: whole migration with Temporal, until it streams',
  'replication',
);

async function measure(
  task: Task,
  method: 'dump' | 'replication',
  client: Client,
  worker: number,
  check: () => Promise<void>,
): Promise<Outcome> {
  const cpuBefore = processCpuSeconds(worker);
  const watch = new Stopwatch(task);
  const handle = await client.workflow.start(WORKFLOW.migrateCluster, {
    taskQueue: DEFAULT_TASK_QUEUE,
    workflowId: `bench-${task.set.name}`,
    args: [planOf(task, method)],
  });
  const ended = result(handle);
  await (method === 'dump' ? ended : Promise.race([untilStreaming(handle), ended]));
  const { outcome } = watch;
  const nodeCpuSeconds = processCpuSeconds(worker) - cpuBefore;
  const memory = peakMemoryBytes(worker);
  await check();
  if (method === 'replication') await handle.signal(MESSAGE.stopReplication, { reason: 'measured' });
  const [report] = (await ended).databases;
  const phases = phasesOf(report, method, outcome.seconds);
  return { ...outcome, phases, nodeCpuSeconds, peakMemoryBytes: memory };
}

/** @throws Error with the sentence of the failed workflow */
async function result(handle: WorkflowHandle): Promise<ClusterReport> {
  try {
    return (await handle.result()) as ClusterReport;
  } catch (error) {
    if (!(error instanceof WorkflowFailedError)) throw error;
    throw new Error(error.cause?.message ?? error.message, { cause: error });
  }
}

async function untilStreaming(handle: WorkflowHandle): Promise<void> {
  for (;;) {
    const { databases } = await handle.query<ClusterProgress>(MESSAGE.progress);
    if (databases.length > 0 && databases.every(({ phase }) => phase === 'streaming')) return;
    await delay(POLL_MS);
  }
}

const AFTER_THE_COPY = ['streaming', 'stopping'];

/** The phases of the report; what is left of the whole is before the database's own workflow, and Temporal itself. */
function phasesOf(report: DatabaseReport | undefined, method: string, whole: number): Record<string, number> {
  const after = method === 'replication' ? [...AFTER_THE_COPY, 'finishing', 'done'] : ['done'];
  const own = Object.entries(report?.seconds ?? {}).filter(([phase]) => !after.includes(phase));
  const sum = own.reduce((total, [, seconds]) => total + seconds, 0);
  return { 'validation and roles': Math.max(0, whole - sum), ...Object.fromEntries(own) };
}
