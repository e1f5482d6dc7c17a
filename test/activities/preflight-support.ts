import { MockActivityEnvironment } from '@temporalio/testing';
import type { ActivityDeps } from '../../activities/context.ts';
import { createInspectActivities } from '../../activities/inspect.ts';
import type { Finding } from '../../src/domain/finding.ts';
import type { ClusterInspection, DatabaseInspection, Migration } from '../../src/domain/migration.ts';
import { parsePlan } from '../../src/domain/plan.ts';
import { resolveReference } from '../../src/postgres/conninfo.ts';

/** What a plan's `env:S` and `env:T` lead to. */
export interface Servers {
  source: string;
  target: string;
}

export type PlanInput = Record<string, unknown>;

function activities({ source, target }: Servers) {
  const env = { S: source, T: target };
  const deps: ActivityDeps = {
    endpoint: (reference, server) => ({ server, info: resolveReference(reference, env) }),
    searchAttributes: true,
  };
  return createInspectActivities(deps);
}

const planOf = (input: PlanInput) => parsePlan({ source: 'env:S', target: 'env:T', ...input });

export function inspectCluster(servers: Servers, input: PlanInput = {}): Promise<ClusterInspection> {
  const step = activities(servers).inspectCluster;
  return new MockActivityEnvironment().run(step, { plan: planOf(input) });
}

export async function migrationOf(servers: Servers, database: string, input: PlanInput = {}): Promise<Migration> {
  const inspected = await inspectCluster(servers, { ...input, databases: { include: [database] } });
  const sourceOid = inspected.databases[0]?.sourceOid;
  if (sourceOid === undefined) throw new Error(`The source has no database ${database}.`);
  const plan = planOf(input);
  const method = plan.method === 'auto' ? 'replication' : plan.method;
  return { id: '0123456789ab', workflowId: 'test/x', database, sourceOid, method, plan, servers: inspected.servers };
}

export async function inspectDatabase(
  servers: Servers,
  database: string,
  input: PlanInput = {},
): Promise<DatabaseInspection> {
  const { plan, sourceOid, servers: pinned } = await migrationOf(servers, database, input);
  const step = activities(servers).inspectDatabase;
  return new MockActivityEnvironment().run(step, { plan, servers: pinned, database, sourceOid });
}

export const recheck = (servers: Servers, m: Migration): Promise<void> =>
  new MockActivityEnvironment().run(activities(servers).recheck, m);

export const withCode = (findings: readonly Finding[], code: string): Finding[] =>
  findings.filter((finding) => finding.code === code);

export const errorsOf = (findings: readonly Finding[]): Finding[] =>
  findings.filter(({ severity }) => severity === 'error');
