import type { Finding } from '../domain/finding.ts';
import type { Method, Plan } from '../domain/plan.ts';
import { displayName } from '../postgres/identifier.ts';
import type { Table } from '../postgres/scope.ts';
import { isPublished } from '../postgres/scope.ts';
import { LIMITS } from '../domain/limits.ts';
import { size } from './units.ts';

export interface Decision {
  method: Method;
  /** Why, as a sentence. */
  reason: string;
  findings: Finding[];
}

const ASKED = 'The plan asks for it.';

/** What the plan names is done, and nothing else: then its obstacles are errors. */
export const asked = (method: Method): Decision => ({ method, reason: ASKED, findings: [] });

/**
 * Chooses for `method: auto`, given what the deciding checks saw. What is known to make replication impossible means a
 * dump; what could not be told stays an error, because a dump loses the writes that come after it.
 */
export function decide(
  database: string,
  obstacles: readonly Finding[],
  tables: readonly Table[],
  stop: Plan['stop']['when'],
): Decision {
  const known = obstacles.filter(({ severity, unknown }) => severity === 'error' && unknown !== true);
  const [first] = known;
  if (first === undefined)
    return { method: 'replication', reason: 'Nothing is in the way of replication.', findings: [...obstacles] };
  const object = first.object === null ? '' : `${first.object}: `;
  const more = known.length > 1 ? ` (and ${known.length - 1} more findings)` : '';
  const reason = `Replication is not possible${more}. ${object}${first.message}`;
  return {
    method: 'dump',
    reason,
    findings: [
      dumpOnly(database, reason, tables, stop),
      ...obstacles.map((finding): Finding => ({ ...finding, severity: 'warning' })),
    ],
  };
}

function dumpOnly(database: string, reason: string, tables: readonly Table[], stop: Plan['stop']['when']): Finding {
  const published = tables.filter(isPublished).sort((a, b) => b.bytes - a.bytes);
  const named = published.slice(0, LIMITS.namesInMessage).map(({ schema, name }) => displayName(schema, name));
  const more = published.length > named.length ? ` and ${published.length - named.length} more` : '';
  const bytes = published.reduce((sum, table) => sum + table.bytes, 0);
  return {
    code: 'dump-only',
    severity: 'warning',
    server: 'source',
    database,
    object: null,
    message:
      `The database is copied once, as of the start of the copy. ${reason} ` +
      `What is written after that to its ${published.length} tables (${size(bytes)}) is lost: ${named.join(', ')}${more}.` +
      (stop === 'caught-up' ? ' The plan is to stop once the target has caught up, which a dump never does.' : ''),
    remedy:
      'Stop writes before the start, or mend what is in the way of replication and set "method" to "replication".',
  };
}
