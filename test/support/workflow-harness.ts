import { randomUUID } from 'node:crypto';
import { Context } from '@temporalio/activity';
import { Client, Connection } from '@temporalio/client';
import { DefaultLogger, makeTelemetryFilterString, NativeConnection, Runtime, Worker } from '@temporalio/worker';
import { inject } from 'vitest';
import type { Activities } from '../../activities/index.ts';
import { heartbeating } from '../../activities/context.ts';
import { lanesTaskQueue } from '../../src/contract.ts';

// The SDK's own lines would drown what a test says.
Runtime.install({
  logger: new DefaultLogger('ERROR'),
  telemetryOptions: { logging: { filter: makeTelemetryFilterString({ core: 'ERROR' }) } },
});

export interface Harness {
  client: Client;
  taskQueue: string;
  /** A workflow id that no other test has. */
  workflowId: string;
  /** The names of the activities in the order in which they were called. */
  calls: string[];
  start: (type: 'migrateCluster' | 'validateCluster', input?: unknown) => ReturnType<Client['workflow']['start']>;
}

const servers = {
  source: { systemIdentifier: '1', version: 170000 },
  target: { systemIdentifier: '2', version: 180000 },
};

/** Ends only when it is cancelled, as the real one. */
export const untilCancelled = (): Promise<never> =>
  heartbeating(
    () => null,
    () => Context.current().cancelled,
  );

/** Every step succeeds at once: a test replaces those that it is about. */
export function stubActivities(databases: string[] = ['shop']): Activities {
  let seal: () => void;
  const sealed = new Promise<void>((resolve) => (seal = resolve));
  return {
    inspectCluster: () =>
      Promise.resolve({
        servers,
        databases: databases.map((database, index) => ({ database, sourceOid: 16384 + index, bytes: 1000 })),
        findings: [],
        searchAttributes: true,
      }),
    inspectDatabase: ({ database }: { database: string }) =>
      Promise.resolve({
        database,
        method: 'replication',
        reason: 'A test says so.',
        tables: 2,
        bytes: 1000,
        findings: [],
      }),
    recheck: () => Promise.resolve(),
    migrateRoles: () =>
      Promise.resolve([{ role: 'app', status: 'created', placeholder: false, message: 'role created' }]),
    createDatabase: () => Promise.resolve({ created: true }),
    openSnapshot: () => Promise.resolve({ consistentPoint: '0/1' }),
    keepSnapshot: () =>
      heartbeating(
        () => null,
        () => Promise.race([sealed, Context.current().cancelled]),
      ),
    closeGeneration: () => Promise.resolve({ sealed: false, finished: 0, left: 2, ranges: 0 }),
    copySchema: () => Promise.resolve({ entries: 3 }),
    planCopy: () => Promise.resolve({ tables: 2, bytes: 1000, units: 2, indexes: 1 }),
    copyTables: () => Promise.resolve({ tables: 1, rows: 5, bytes: 500, current: null }),
    buildIndexes: () => Promise.resolve({ tables: 1, rows: 0, bytes: 0, current: null }),
    copyLargeObjects: () => Promise.resolve({ objects: 0, bytes: 0 }),
    copySequences: () => Promise.resolve({ sequences: 1 }),
    verifyCopied: () => Promise.resolve({ tables: 2, rows: 10, seconds: 0 }),
    verifyFenced: () => Promise.resolve({ tables: 1, unchanged: 0, ofTables: 2, bytes: 500 }),
    sealCopy: () => {
      seal();
      return Promise.resolve({ tables: 2, rows: 10, bytes: 1000 });
    },
    restoreConstraints: () => Promise.resolve({ entries: 1 }),
    restoreForeignKeys: () => Promise.resolve(),
    refreshMaterializedViews: () => Promise.resolve({ refreshed: 0 }),
    createSubscription: () => Promise.resolve(),
    waitForCatchUp: () => Promise.resolve(),
    watchReplication: untilCancelled,
    verifyStreaming: untilCancelled,
    readiness: () =>
      Promise.resolve({ conditions: [{ name: 'lag', state: 'ok', detail: 'None.', next: null }], sample: null }),
    rehearseStop: () =>
      Promise.resolve({ steps: [{ name: 'waitForDrain', ms: 30, estimated: false }], expectedDowntimeMs: 30 }),
    waitForGate: () => Promise.resolve(),
    fence: () => Promise.resolve(),
    unfence: () => Promise.resolve(),
    resumeClients: () => Promise.resolve(),
    armReverse: () => Promise.resolve(),
    dropReverse: () => Promise.resolve(),
    measureReverse: () => Promise.resolve({ lagBytes: 7, retainedBytes: 9, problem: null }),
    watchReverse: untilCancelled,
    fenceTarget: () => Promise.resolve(),
    unfenceTarget: () => Promise.resolve(),
    drainBack: () => Promise.resolve({ markLsn: '0/20' }),
    closeBack: () => Promise.resolve({ bytes: 0, tables: [] }),
    enableReverse: () => Promise.resolve(),
    settle: () => Promise.resolve({ warnings: [] }),
    mark: () => Promise.resolve({ markLsn: '0/10' }),
    waitForDrain: () => Promise.resolve(),
    disableSubscriptions: () => Promise.resolve(),
    enableSubscriptions: () => Promise.resolve(),
    walAfterMark: () => Promise.resolve({ bytes: 0, tables: [] }),
    compareSchemas: () => Promise.resolve({ differences: [] }),
    catchUpLargeObjects: () => Promise.resolve(null),
    carryOver: () => Promise.resolve({ sequences: 1, largeObjects: 0, unloggedTables: 0 }),
    dropReplication: () => Promise.resolve(),
    measure: () =>
      Promise.resolve({
        tables: { copied: 2, total: 2 },
        bytes: { copied: 1000, total: 1000 },
        rows: 10,
        indexes: { built: 1, total: 1 },
        lagBytes: 0,
        retainedBytes: 0,
        problem: null,
      }),
    readReport: () => Promise.resolve({ tables: 2, rows: 10, bytes: 1000, warnings: [] }),
    finish: () => Promise.resolve({ warnings: [] }),
    undo: () => Promise.resolve({ leftovers: [] }),
    clearAway: () => Promise.resolve(),
  } as unknown as Activities;
}

/** Runs `work` beside two workers that serve a task queue of their own with these activities. */
export async function withWorkers(
  activities: Partial<Activities>,
  work: (harness: Harness) => Promise<void>,
  databases?: string[],
  address: string = inject('temporalAddress'),
): Promise<void> {
  const codePath = inject('workflowBundlePath');
  if (codePath === null) throw new Error('The workflow bundle was not built: see test/support/global-setup.ts.');
  const taskQueue = `test-${randomUUID()}`;
  const calls: string[] = [];
  const noted = Object.fromEntries(
    Object.entries({ ...stubActivities(databases), ...activities }).map(([name, step]) => [
      name,
      (...args: unknown[]) => {
        calls.push(name);
        return (step as (...args: unknown[]) => unknown)(...args);
      },
    ]),
  );
  const connection = await NativeConnection.connect({ address });
  const clientConnection = await Connection.connect({ address });
  const options = {
    connection,
    activities: noted,
    shutdownForceTime: '5s',
    maxHeartbeatThrottleInterval: 200,
  } as const;
  const workers = await Promise.all([
    Worker.create({ ...options, taskQueue, workflowBundle: { codePath } }),
    Worker.create({ ...options, taskQueue: lanesTaskQueue(taskQueue) }),
  ]);
  const client = new Client({ connection: clientConnection });
  const workflowId = `test-${randomUUID()}`;
  const start: Harness['start'] = (type, ...input) =>
    client.workflow.start(type, { taskQueue, workflowId, args: input });
  const running = workers.map((worker) => worker.run());
  try {
    await work({ client, taskQueue, workflowId, calls, start });
  } finally {
    for (const worker of workers) worker.shutdown();
    await Promise.allSettled(running);
    await clientConnection.close();
    await connection.close();
  }
}

/** Asks again until `found` is true of the answer. */
export async function eventually<T>(ask: () => Promise<T>, found: (answer: T) => boolean, ms = 20_000): Promise<T> {
  const giveUpAt = Date.now() + ms;
  for (;;) {
    const answer = await ask();
    if (found(answer)) return answer;
    if (Date.now() > giveUpAt)
      throw new Error(`It did not happen within ${ms} ms; the last answer: ${JSON.stringify(answer)}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
