import { randomUUID } from 'node:crypto';
import type { Client } from '@temporalio/client';
import type { PostgresAccess } from '../../lab/postgres-access.ts';
import type { Finding } from '../../src/domain/finding.ts';

/** A right may show that another is missing; more rounds than this are a remedy that does not help. */
const MOST_ROUNDS = 6;

/**
 * Does what an operator would who knows nothing but what `validateCluster` prints: runs each remedy that is SQL, one after
 * the other, as superuser on the server that it names, and asks again, until there is none that was not run.
 */
export async function followRemedies(
  client: Client,
  taskQueue: string,
  { source, target, plan }: { source: PostgresAccess; target: PostgresAccess; plan: object },
): Promise<string[]> {
  const followed: string[] = [];
  for (let round = 0; round < MOST_ROUNDS; round++) {
    const { findings } = (await client.workflow.execute('validateCluster', {
      taskQueue,
      workflowId: `${taskQueue}-validate-${randomUUID()}`,
      args: [plan],
    })) as { findings: Finding[] };
    const before = followed.length;
    for (const { severity, server, database, remedy } of findings) {
      if (severity === 'info' || !isSql(remedy) || followed.includes(remedy)) continue;
      followed.push(remedy);
      const access = server === 'source' ? source : target;
      const there = await access.psql('postgres', `SELECT 1 FROM pg_database WHERE datname = '${database ?? ''}'`);
      await access.psql(there === '' ? 'postgres' : (database ?? 'postgres'), remedy);
    }
    if (followed.length === before) return followed;
  }
  throw new Error(`There is no end of remedies:\n${followed.join('\n')}`);
}

const isSql = (remedy: string | null): remedy is string => /^(GRANT|ALTER|CREATE) /.test(remedy ?? '');
