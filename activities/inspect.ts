import { randomBytes } from 'node:crypto';
import { applicationName } from '../src/contract.ts';
import { MigrationError } from '../src/domain/failure.ts';
import type { Finding } from '../src/domain/finding.ts';
import { blocks, capFindings, describeFinding } from '../src/domain/finding.ts';
import { LIMITS } from '../src/domain/limits.ts';
import type { ClusterInspection, DatabaseInspection, Migration, PinnedServers } from '../src/domain/migration.ts';
import type { Plan } from '../src/domain/plan.ts';
import type { Endpoint, Session } from '../src/postgres/connection.ts';
import { connect } from '../src/postgres/connection.ts';
import { databaseExists, findUserObject } from '../src/postgres/database.ts';
import { toMigrationError } from '../src/postgres/sqlstate.ts';
import { databasesInScope } from '../src/preflight/databases.ts';
import { inspectOneDatabase, inspectServers, readScope, recheckDatabase } from '../src/preflight/inspect.ts';
import type { ActivityDeps } from './context.ts';
import { pgbouncerConsole, sourceForTarget, targetForSource } from './endpoints.ts';
import { readIdentity } from '../src/postgres/identity.ts';
import { activitySignal, heartbeating, nextPoll, openSource, openTarget, withSession } from './context.ts';

export interface DatabaseToInspect {
  plan: Plan;
  servers: PinnedServers;
  database: string;
  sourceOid: number;
}

/** Nothing is changed by accident, and no catalog query is waited for without end. */
const READ_ONLY = {
  default_transaction_read_only: 'on',
  statement_timeout: String(LIMITS.checkTimeoutMs),
  lock_timeout: String(LIMITS.checkTimeoutMs),
};

export function createInspectActivities(deps: ActivityDeps) {
  return {
    /**
     * Connects to both servers, pins their identity, lists the databases that the plan means, and checks the servers.
     * @throws MigrationError `ValidationFailed` when a server cannot be reached or logged into
     */
    async inspectCluster({ plan }: { plan: Plan }): Promise<ClusterInspection> {
      const id = newId();
      const [source, target] = await reachBoth(deps, plan, id);
      try {
        const servers = { source: await pin(source), target: await pin(target) };
        const { databases, findings } = await databasesInScope(source, plan, (database) =>
          holdsObjects(source, database, id),
        );
        const context = {
          plan,
          source,
          target,
          databases,
          sourceForTarget: sourceForTarget(deps, plan),
          own: null,
          ...beyondTheServers(deps, plan),
        };
        findings.push(...(await inspectServers(context)));
        return { servers, databases, findings: capFindings(findings), searchAttributes: deps.searchAttributes };
      } catch (error) {
        activitySignal().throwIfAborted();
        throw toMigrationError(error, { server: 'source', doing: 'inspecting the servers' });
      } finally {
        await Promise.all([source.close(), target.close()]);
      }
    },

    /** Checks one database on both servers and decides its method. */
    async inspectDatabase(request: DatabaseToInspect): Promise<DatabaseInspection> {
      const { plan, servers, database, sourceOid } = request;
      const method = plan.method === 'auto' ? 'replication' : plan.method;
      const m: Migration = { id: newId(), workflowId: '', database, sourceOid, method, plan, servers };
      const bytes = 0;
      try {
        return await withBoth(deps, m, (source, target, targetExists) =>
          inspectOneDatabase({
            ...{ plan, source, target, targetExists, database },
            ...{ databases: [{ database, sourceOid, bytes }], sourceForTarget: sourceForTarget(deps, plan), own: null },
            ...beyondTheServers(deps, plan),
          }),
        );
      } catch (error) {
        if (!(error instanceof Unreachable)) throw error;
        return { database, method, reason: 'It could not be looked at.', tables: 0, bytes, findings: [error.finding] };
      }
    },

    /**
     * Looks once more, right before anything is changed, at what may have changed since validation.
     * @throws MigrationError `ValidationFailed` with a sentence for each finding that blocks
     */
    async recheck(m: Migration): Promise<void> {
      const findings = await withBoth(deps, m, async (source, target, targetExists) =>
        recheckDatabase({
          ...{ plan: m.plan, database: m.database, method: m.method, source, target, targetExists },
          databases: [{ database: m.database, sourceOid: m.sourceOid, bytes: 0 }],
          replication: m.method === 'replication',
          tables: await readScope(source, m.plan, m.database),
          sourceForTarget: sourceForTarget(deps, m.plan),
          ...beyondTheServers(deps, m.plan),
          own: m.id,
          rowsBudget: { ms: LIMITS.checkRowsMs },
        }),
      ).catch((error: unknown) => {
        if (error instanceof Unreachable) return [error.finding];
        throw error;
      });
      const blocking = capFindings(findings.filter(blocks));
      if (blocking.length === 0) return;
      throw new MigrationError(
        'ValidationFailed',
        `Something has come in the way since validation, and nothing was changed. ${blocking.map(describeFinding).join(' ')}`,
      );
    },
  };
}

/** The application names of an inspection are told apart like those of a migration. */
const newId = (): string => randomBytes(6).toString('hex');

async function pin(session: Session): Promise<PinnedServers['source']> {
  const { systemIdentifier, version } = await readIdentity(session);
  return { systemIdentifier, version };
}

/** What the plan names beside the two servers. */
const beyondTheServers = (deps: ActivityDeps, plan: Plan) => ({
  pgbouncer: pgbouncerConsole(deps, plan),
  targetForSource: targetForSource(deps, plan),
});

/** Both are tried, so that both sentences are said at once. */
async function reachBoth(deps: ActivityDeps, plan: Plan, id: string): Promise<[Session, Session]> {
  const endpoints = [deps.endpoint(plan.source, 'source'), deps.endpoint(plan.target, 'target')];
  const reasons = new Map<Endpoint, string>();
  const outcomes = await heartbeating(
    () => ({ waitingFor: [...reasons.values()].join(' ') }),
    () =>
      Promise.allSettled(endpoints.map((endpoint) => reach(endpoint, id, (reason) => reasons.set(endpoint, reason)))),
  );
  const [source, target] = outcomes.map((outcome) => (outcome.status === 'fulfilled' ? outcome.value : undefined));
  if (source !== undefined && target !== undefined) return [source, target];
  source?.destroy();
  target?.destroy();
  activitySignal().throwIfAborted();
  const rejected = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason as unknown] : []));
  const failures = rejected.map((reason) => {
    if (reason instanceof MigrationError) return reason;
    throw reason;
  });
  const remedies = [...new Set(failures.map(remedyFor))];
  throw new MigrationError('ValidationFailed', failures.map(({ message }) => message).join(' '), {
    next: remedies.join(' '),
    sqlstate: failures[0]?.details.sqlstate ?? null,
  });
}

/** Before anything was changed, nothing is parked that could be resolved. */
const startAgain = (next: string): string => next.replace('then resolve with retry', 'then start the workflow again');

const NO_SUCH_DATABASE = '3D000';

/** Which databases are moved is said elsewhere; many a newcomer names a new one here. */
const remedyFor = ({ details }: MigrationError): string =>
  details.sqlstate === NO_SUCH_DATABASE
    ? 'Name a database that is there in the connection string, e.g. "postgres": it is only for connecting, and those that are moved are created.'
    : startAgain(details.next);

/**
 * A server that is just starting is waited for; a wrong password or host name is not mended by waiting. `onWait` is told
 * what is in the way.
 */
async function reach(endpoint: Endpoint, id: string, onWait: (reason: string) => void): Promise<Session> {
  const giveUpAt = Date.now() + LIMITS.reachServerMs;
  const options = { applicationName: applicationName(id, 'control'), settings: READ_ONLY, signal: activitySignal() };
  for (;;) {
    try {
      return await connect(endpoint, options);
    } catch (error) {
      const isOurs = error instanceof MigrationError;
      const mayPass = isOurs && error.retryable && !error.message.includes('ENOTFOUND');
      if (!mayPass || Date.now() + LIMITS.pollMs > giveUpAt) throw error;
      onWait(error.message);
      await nextPoll();
    }
  }
}

/** Whether somebody uses a database. One that we may not look into is taken as used, and is then a finding. */
async function holdsObjects(source: Session, database: string, id: string): Promise<boolean> {
  const { current } = await source.one<{ current: string }>('SELECT current_database() AS current');
  if (current === database) return (await findUserObject(source)) !== null;
  const options = {
    database,
    applicationName: applicationName(id, 'control'),
    settings: READ_ONLY,
    signal: activitySignal(),
  };
  let session: Session;
  try {
    session = await connect(source.endpoint, options);
  } catch (error) {
    if (error instanceof MigrationError && !error.retryable) return true;
    throw error;
  }
  try {
    return (await findUserObject(session)) !== null;
  } finally {
    await session.close();
  }
}

/** A database that one of the servers does not let us into. One of ours, so that no session around it wraps it. */
class Unreachable extends MigrationError {
  readonly finding: Finding;

  constructor(m: Migration, server: 'source' | 'target', { type, message, details }: MigrationError) {
    super(type, message, details);
    this.finding = {
      ...{ code: 'database-unreachable', severity: 'error', server, database: m.database, object: null, message },
      remedy: startAgain(details.next),
    };
  }
}

/** Opens the database on the source, and on the target where it is there; else any database of the target. */
async function withBoth<T>(
  deps: ActivityDeps,
  m: Migration,
  work: (source: Session, target: Session, targetExists: boolean) => Promise<T>,
): Promise<T> {
  const options = { settings: READ_ONLY };
  const maintenance = deps.endpoint(m.plan.target, 'target').info['dbname'] ?? 'postgres';
  const doing = `inspecting database "${m.database}"`;
  const opening = unlessRefused(m, 'source', openSource(deps, m, 'probe', options));
  return withSession(opening, doing, async (source) => {
    const looking = openTarget(deps, m, 'probe', { ...options, database: maintenance });
    return withSession(unlessRefused(m, 'target', looking), doing, async (server) => {
      if (maintenance === m.database) return work(source, server, true);
      if (!(await databaseExists(server, m.database))) return work(source, server, false);
      const entering = unlessRefused(m, 'target', openTarget(deps, m, 'probe', options));
      return withSession(entering, doing, (target) => work(source, target, true));
    });
  });
}

async function unlessRefused(m: Migration, server: 'source' | 'target', opening: Promise<Session>): Promise<Session> {
  try {
    return await opening;
  } catch (error) {
    if (error instanceof MigrationError && !error.retryable && error.type !== 'WrongServer')
      throw new Unreachable(m, server, error);
    throw error;
  }
}
