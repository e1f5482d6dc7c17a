import { randomBytes } from 'node:crypto';
import { MockActivityEnvironment } from '@temporalio/testing';
import type { Activities } from '../../activities/index.ts';
import { createActivities } from '../../activities/index.ts';
import type { Migration } from '../../src/domain/migration.ts';
import type { Plan } from '../../src/domain/plan.ts';
import { parsePlan } from '../../src/domain/plan.ts';
import { createDeps } from '../../src/worker.ts';
import type { Method, Task } from './method.ts';
import { Stopwatch } from './method.ts';

const GENERATION = 0;

/** The plan of pgtransit's methods. Comparing rows is more than the other tools do, so it is left out. */
export function planOf({ set, copy, index }: Task, method: 'dump' | 'replication'): object {
  const lanes = { ...(copy === null ? {} : { copy }), ...(index === null ? {} : { index }) };
  return { databases: { include: [set.name] }, method, verify: 'none', onError: 'fail', parallelism: lanes };
}

/** Whom a plan without references means. */
export const serverUris = ({ source, target }: Task): Record<string, string> => ({
  SOURCE_SERVICE_URI: source.uri('postgres'),
  TARGET_SERVICE_URI: target.uri('postgres'),
});

/** Copy, indexes and constraints alone: the steps that `migrateDatabase` runs, in its order, without Temporal. */
export const engine: Method = {
  title: "pgtransit's engine alone (copy + indexes + constraints)",
  createsDatabase: true,
  missing: () => null,
  async run(task, check) {
    const steps = new Steps(createActivities(createDeps(serverUris(task), { searchAttributes: false })));
    const plan = parsePlan(planOf(task, 'dump'));
    const { servers, databases } = await steps.run('inspectCluster', { plan });
    const [found] = databases;
    if (found === undefined) throw new Error(`The source has no database ${task.set.name}.`);
    const { database, sourceOid } = found;
    const id = randomBytes(6).toString('hex');
    const m: Migration = { id, workflowId: `bench/${id}`, database, sourceOid, method: 'dump', plan, servers };
    await steps.run('createDatabase', m);

    const cpu = process.cpuUsage();
    const watch = new Stopwatch(task);
    try {
      await watch.phase('snapshot', () => steps.run('openSnapshot', m, GENERATION));
      const keeping = steps.run('keepSnapshot', m, GENERATION);
      // Its failure must not leave the lanes waiting.
      await Promise.all([keeping, copy(steps, watch, m, plan)]);
      await watch.phase('constraints', () => steps.run('restoreConstraints', m));
      const { outcome } = watch;
      const { user, system } = process.cpuUsage(cpu);
      await check();
      return { ...outcome, nodeCpuSeconds: (user + system) / 1e6 };
    } finally {
      await steps.end();
    }
  },
};

async function copy(steps: Steps, watch: Stopwatch, m: Migration, { parallelism }: Plan): Promise<void> {
  await watch.phase('schema', () => steps.run('copySchema', m, GENERATION));
  await watch.phase('plan', () => steps.run('planCopy', m, GENERATION));
  const began = performance.now();
  const copied = lanes(parallelism.copy, (lane) => steps.run('copyTables', m, GENERATION, lane)).then(() =>
    performance.now(),
  );
  const indexed = lanes(parallelism.index, (lane) => steps.run('buildIndexes', m, lane));
  const [copyEnded] = await Promise.all([copied, indexed]);
  watch.add('copy, with indexes beside it', (copyEnded - began) / 1000);
  watch.add('the last indexes', (performance.now() - copyEnded) / 1000);
  await watch.phase('large objects', () => steps.run('copyLargeObjects', m, GENERATION));
  await watch.phase('sequences', () => steps.run('copySequences', m, GENERATION));
  await watch.phase('seal', () => steps.run('sealCopy', m, GENERATION));
}

const lanes = (count: number, lane: (number: number) => Promise<unknown>): Promise<unknown> =>
  Promise.all(Array.from({ length: count }, (_, number) => lane(number)));

/** Gives activities the context that a worker would. */
class Steps {
  readonly #activities: Activities;
  readonly #running = new Map<MockActivityEnvironment, Promise<unknown>>();

  constructor(activities: Activities) {
    this.#activities = activities;
  }

  run<Name extends keyof Activities>(
    name: Name,
    ...args: Parameters<Activities[Name]>
  ): Promise<Awaited<ReturnType<Activities[Name]>>> {
    const environment = new MockActivityEnvironment();
    const step = this.#activities[name] as (...args: unknown[]) => Promise<Awaited<ReturnType<Activities[Name]>>>;
    const running = environment.run<unknown[], Awaited<ReturnType<Activities[Name]>>, typeof step>(step, ...args);
    // Who waits for it learns of its failure; a step that is cancelled at the end has nobody who waits.
    const settled = running.then(
      () => this.#running.delete(environment),
      () => this.#running.delete(environment),
    );
    this.#running.set(environment, settled);
    return running;
  }

  /** Cancels all that still run, and waits for their end. */
  async end(): Promise<void> {
    for (const environment of this.#running.keys()) environment.cancel();
    await Promise.all(this.#running.values());
  }
}
