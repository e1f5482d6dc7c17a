import type { Plan } from '../src/domain/plan.ts';
import type { ConnInfo } from '../src/postgres/conninfo.ts';
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
