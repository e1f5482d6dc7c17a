import { LIMITS } from '../domain/limits.ts';
import type { Plan } from '../domain/plan.ts';
import type { Session } from '../postgres/connection.ts';
import { quoteIdent } from '../postgres/identifier.ts';
import type { ClusterContext, DatabaseContext, Seen } from './check.ts';

/** Besides the lanes: on the source holder, keeper and a look in between, on the target two that write down and look. */
const OTHERS = { source: 3, target: 2 };

/** Sessions that one database uses on either side, at most and at least; each more than the least is speed. */
export function sessionsOf(plan: Plan, copies: boolean): Record<'source' | 'target', { most: number; least: number }> {
  const { copy, index } = plan.parallelism;
  if (!copies) {
    const others = Math.min(copy, LIMITS.schemaSessions) - 1;
    return {
      source: { most: OTHERS.source, least: OTHERS.source },
      target: { most: OTHERS.target + others, least: OTHERS.target },
    };
  }
  return {
    source: { most: OTHERS.source + copy, least: OTHERS.source + 1 },
    target: { most: OTHERS.target + copy + index, least: OTHERS.target + 2 },
  };
}

export const sourceConnections = ({ source, plan, databases }: ClusterContext): Promise<Seen[]> =>
  freeConnections(source, sessionsOf(plan, true).source.most * atOnce(plan, databases));

export const targetConnections = ({ target, plan, databases }: ClusterContext): Promise<Seen[]> =>
  freeConnections(target, sessionsOf(plan, true).target.most * atOnce(plan, databases));

const atOnce = ({ parallelism }: Plan, databases: readonly unknown[]): number =>
  Math.min(parallelism.databases, databases.length);

/** Sessions come and go, so this is no more than a warning; but those that a copy takes, the application lacks. */
async function freeConnections(session: Session, wanted: number): Promise<Seen[]> {
  const { room, used } = await session.one<{ room: number; used: number }>(
    // reserved_connections came with 16.
    `SELECT current_setting('max_connections')::float8 - current_setting('superuser_reserved_connections')::float8
              - coalesce(current_setting('reserved_connections', true)::float8, 0) AS room,
            (SELECT coalesce(sum(numbackends), 0)::float8 FROM pg_stat_database) AS used`,
  );
  const free = Math.max(room - used, 0);
  if (free >= wanted) return [];
  return [
    {
      message: `${free} of ${room} connections are free, and the copy uses up to ${wanted}; what it takes, others cannot have.`,
      remedy: 'Lower "parallelism", or raise "max_connections" and restart the server.',
    },
  ];
}

export const sourceConnectionLimit = ({ source, database, plan }: DatabaseContext): Promise<Seen[]> =>
  connectionLimit(source, database, sessionsOf(plan, true).source);

export const targetConnectionLimit = ({ target, database, plan }: DatabaseContext): Promise<Seen[]> =>
  connectionLimit(target, database, sessionsOf(plan, true).target);

/** A superuser is not bound by either limit. A database that is not there yet gets its limit last. */
async function connectionLimit(
  session: Session,
  database: string,
  { most, least }: { most: number; least: number },
): Promise<Seen[]> {
  const { limits } = await session.one<{ limits: { what: 'DATABASE' | 'ROLE'; name: string; limit: number }[] }>(
    `SELECT coalesce(json_agg(l), '[]') AS limits FROM (
       SELECT 'DATABASE' AS what, datname AS name, datconnlimit AS limit FROM pg_database WHERE datname = $1
       UNION ALL
       SELECT 'ROLE', rolname, rolconnlimit FROM pg_roles WHERE rolname = current_user
     ) AS l WHERE l.limit >= 0 AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)`,
    [database],
  );
  return limits
    .filter(({ limit }) => limit < most)
    .map(({ what, name, limit }) => ({
      object: quoteIdent(name),
      message: `The ${what.toLowerCase()} is limited to ${limit} connections, and the copy of ${quoteIdent(database)} uses up to ${most}.`,
      remedy: `ALTER ${what} ${quoteIdent(name)} CONNECTION LIMIT -1; -- or a smaller "parallelism"`,
      severity: limit < least ? 'error' : 'warning',
    }));
}
