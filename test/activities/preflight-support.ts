import { MockActivityEnvironment } from '@temporalio/testing';
import pg from 'pg';
import type { ActivityDeps } from '../../activities/context.ts';
import { createInspectActivities } from '../../activities/inspect.ts';
import type { Finding } from '../../src/domain/finding.ts';
import type { ClusterInspection, DatabaseInspection, Migration, PinnedServers } from '../../src/domain/migration.ts';
import { parsePlan } from '../../src/domain/plan.ts';
import { resolveReference } from '../../src/postgres/conninfo.ts';

/** What a plan's `env:S`, `env:T` and `env:U` lead to. */
export interface Servers {
  source: string;
  target: string;
  /** How the target reaches the source, when that differs. */
  sourceForTarget?: string;
}

export type PlanInput = Record<string, unknown>;

function activities({ source, target, sourceForTarget }: Servers) {
  const env = { S: source, T: target, U: sourceForTarget };
  const deps: ActivityDeps = {
    endpoint: (reference, server, reader) => ({ server, info: resolveReference(reference, env, reader) }),
    searchAttributes: true,
  };
  return createInspectActivities(deps);
}

const planOf = (input: PlanInput) => parsePlan({ source: 'env:S', target: 'env:T', ...input });

export function inspectCluster(servers: Servers, input: PlanInput = {}): Promise<ClusterInspection> {
  const plan = planOf(input);
  return new MockActivityEnvironment().run(() => activities(servers).inspectCluster({ plan }));
}

const pinned = new Map<string, Promise<PinnedServers>>();

/** The identities of two servers, read once. */
function pin(servers: Servers): Promise<PinnedServers> {
  const key = JSON.stringify(servers);
  const known = pinned.get(key) ?? inspectCluster(servers).then((inspection) => inspection.servers);
  pinned.set(key, known);
  return known;
}

async function oidOf(uri: string, database: string): Promise<number> {
  const client = new pg.Client({ connectionString: uri });
  await client.connect();
  try {
    const { rows } = await client.query<{ oid: number }>('SELECT oid FROM pg_database WHERE datname = $1', [database]);
    return rows[0]?.oid ?? 0;
  } finally {
    await client.end();
  }
}

export async function migrationOf(servers: Servers, database: string, input: PlanInput = {}): Promise<Migration> {
  const plan = planOf(input);
  const method = plan.method === 'auto' ? 'replication' : plan.method;
  const sourceOid = await oidOf(servers.source, database);
  return { id: '0123456789ab', workflowId: 'test/x', database, sourceOid, method, plan, servers: await pin(servers) };
}

export async function inspectDatabase(
  servers: Servers,
  database: string,
  input: PlanInput = {},
): Promise<DatabaseInspection> {
  const { plan, sourceOid, servers: identities } = await migrationOf(servers, database, input);
  const request = { plan, servers: identities, database, sourceOid };
  return new MockActivityEnvironment().run(() => activities(servers).inspectDatabase(request));
}

/** As validateCluster does: so many at a time. */
export async function inspectDatabases(
  servers: Servers,
  databases: ClusterInspection['databases'],
  atOnce: number,
  input: PlanInput = {},
): Promise<DatabaseInspection[]> {
  const [plan, identities] = [planOf(input), await pin(servers)];
  const inspections: DatabaseInspection[] = [];
  for (let first = 0; first < databases.length; first += atOnce)
    inspections.push(
      ...(await Promise.all(
        databases
          .slice(first, first + atOnce)
          .map(({ database, sourceOid }) =>
            new MockActivityEnvironment().run((): Promise<DatabaseInspection> =>
              activities(servers).inspectDatabase({ plan, servers: identities, database, sourceOid }),
            ),
          ),
      )),
    );
  return inspections;
}

export const recheck = (servers: Servers, m: Migration): Promise<void> =>
  new MockActivityEnvironment().run(() => activities(servers).recheck(m));

export const withCode = (findings: readonly Finding[], code: string): Finding[] =>
  findings.filter((finding) => finding.code === code);

export const errorsOf = (findings: readonly Finding[]): Finding[] =>
  findings.filter(({ severity }) => severity === 'error');
