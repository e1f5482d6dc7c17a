import type { Plan } from '../src/domain/plan.ts';
import type { ConnInfo, Reader } from '../src/postgres/conninfo.ts';
import type { Endpoint } from '../src/postgres/connection.ts';
import type { ActivityDeps } from './context.ts';

/** How the target server reaches the source, and who it comes as. */
export const sourceForTarget = (deps: ActivityDeps, plan: Plan): ConnInfo =>
  plan.sourceForTarget === null
    ? deps.endpoint(plan.source, 'source').info
    : deps.endpoint(plan.sourceForTarget, 'source', 'target-server').info;

/** The admin console of the plan's PgBouncer; null where it has none. */
export const pgbouncerConsole = (deps: ActivityDeps, plan: Plan): Endpoint | null =>
  plan.stop.pgbouncer === null ? null : deps.endpoint(plan.stop.pgbouncer, 'source');

/** How the source server reaches the target for the way back, and for whom that was written; null: there is none. */
export function targetForSource(deps: ActivityDeps, plan: Plan): { info: ConnInfo; reader: Reader } | null {
  if (plan.reverse === false) return null;
  const reference = plan.reverse.targetForSource;
  const reader = reference === null ? 'worker' : 'target-server';
  return { info: deps.endpoint(reference ?? plan.target, 'target', reader).info, reader };
}
