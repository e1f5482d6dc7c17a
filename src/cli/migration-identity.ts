import { createHash } from 'node:crypto';
import type { Plan } from '../domain/plan.ts';
import type { ConnInfo } from '../postgres/conninfo.ts';

/**
 * The workflow id of a migration: the same for the same servers and scope, so that the same command finds it again.
 * Users, passwords and the database of the connection string are not part of it.
 */
export function migrationIdentity(source: ConnInfo, target: ConnInfo, plan: Plan): string {
  const { databases, tables, method } = plan;
  const scope = [
    addresses(source),
    addresses(target),
    ...[databases.include, databases.exclude, tables.include, tables.exclude].map((names) => [...names].sort()),
    method === 'schema-only',
  ];
  return `pgtransit-${createHash('sha256').update(JSON.stringify(scope)).digest('hex').slice(0, 12)}`;
}

/** The hosts of a string in its order, each with its port; a list of hosts may share one port. */
function addresses({ host = '', hostaddr, port = '5432' }: ConnInfo): string[] {
  const ports = port.split(',');
  return (host === '' ? (hostaddr ?? '') : host)
    .split(',')
    .map((name, index) => `${name.toLowerCase()}:${ports[index] ?? ports[0] ?? ''}`);
}
