import type { Finding } from '../domain/finding.ts';
import type { DatabaseContext } from './check.ts';
import { sessionsOf } from './sessions.ts';
import { size } from './units.ts';

/** What will be done with a database, for whoever reads the findings before the start. */
export function describePlan(context: DatabaseContext, reason: string, findings: readonly Finding[]): Finding {
  const { plan, database, method, tables } = context;
  const bytes = tables.reduce((sum, table) => sum + table.bytes, 0);
  const copies = method !== 'schema-only';
  const sessions = sessionsOf(plan, copies);
  const streams =
    method === 'replication'
      ? ', one replication slot and one WAL sender on the source, one subscription with its apply worker on the target'
      : '';
  return {
    ...{ code: 'plan', severity: 'info', server: 'source', database, object: null, remedy: null },
    message:
      `Method ${method}: ${reason} ${copies ? `Its ${tables.length} tables have ${size(bytes)}` : `The schema of ${tables.length} tables is copied`}. ` +
      `It takes up to ${sessions.source.most} sessions on the source and ${sessions.target.most} on the target${streams}. ` +
      `Not carried over: ${notCarried(context, findings).join('; ')}.`,
  };
}

const counted = (count: number, one: string, many: string): string[] =>
  count === 0 ? [] : [count === 1 ? `one ${one}` : `${count} ${many}`];

function notCarried({ plan, method }: DatabaseContext, findings: readonly Finding[]): string[] {
  const count = (code: string) =>
    findings.filter(
      (finding) =>
        finding.code === code &&
        finding.server === 'source' &&
        (code !== 'unlogged-table' || finding.severity !== 'info'),
    ).length;
  const follows = method === 'replication';
  return [
    ...(method === 'replication' ? ['changes of the schema while it runs'] : []),
    ...(method === 'dump' ? ['whatever is written after the start of the copy'] : []),
    ...(method === 'schema-only' ? ['rows'] : []),
    ...(follows
      ? counted(
          count('unlogged-table'),
          'unlogged table, once it is copied',
          'unlogged tables, once they are copied',
        ).map((which) => `changes of ${which}`)
      : []),
    ...counted(count('subscription'), 'subscription', 'subscriptions'),
    ...counted(count('invalid-index'), 'invalid index', 'invalid indexes'),
    ...counted(count('catalog-object'), 'object in pg_catalog', 'objects in pg_catalog'),
    ...(plan.tables.include.length + plan.tables.exclude.length > 0
      ? ['rows of the tables that the filter leaves out']
      : []),
    ...counted(plan.extensions.exclude.length, 'excluded extension', 'excluded extensions'),
    ...(plan.owners ? [] : ['owners']),
    ...(plan.privileges ? [] : ['grants']),
    'replication slots, statistics and temporary tables',
  ];
}
