import { Context } from '@temporalio/activity';
import { CancelledFailure } from '@temporalio/common';
import type { SessionRole } from '../src/contract.ts';
import { applicationName } from '../src/contract.ts';
import { MigrationError } from '../src/domain/failure.ts';
import type { Migration, ServerIdentity } from '../src/domain/migration.ts';
import { LIMITS } from '../src/domain/limits.ts';
import { endSessions } from '../src/postgres/backend.ts';
import type { Bell } from '../src/postgres/bell.ts';
import type { Endpoint, Session, SessionOptions } from '../src/postgres/connection.ts';
import { connect } from '../src/postgres/connection.ts';
import type { Reader } from '../src/postgres/conninfo.ts';
import { readIdentity } from '../src/postgres/identity.ts';
import { bringLedgerUpToDate } from '../src/postgres/ledger-version.ts';
import { redact, toMigrationError } from '../src/postgres/sqlstate.ts';

/** What a worker gives to its activities. */
export interface ActivityDeps {
  /**
   * Resolves a plan's reference (`env:NAME`, `service:NAME`, a URI) in this worker. `reader`: the one who will connect
   * by it, when that is the target server itself.
   */
  endpoint(reference: string, server: 'source' | 'target', reader?: Reader): Endpoint;
  /** Whether this worker saw the four search attributes registered on its Temporal namespace. */
  searchAttributes: boolean;
  /** Is told the passwords that were made up, by role. Absent: nobody is, and they are known to nobody. */
  onPlaceholders?(passwords: ReadonlyMap<string, string>): void;
  /** Log what pg_dump says and every object that is restored. */
  verbose?: boolean;
}

/** Aborted when Temporal cancels the activity or the worker shuts down. */
export const activitySignal = (): AbortSignal => Context.current().cancellationSignal;

const reporters = new WeakMap<Context, () => unknown>();

/**
 * Heartbeats from a timer, with what `details` says at that moment, until `work` is over. Every step is wrapped in
 * one; a step that has something to tell wraps its work again, and its details are shown instead.
 */
export async function heartbeating<T>(details: () => unknown, work: () => Promise<T>): Promise<T> {
  const context = Context.current();
  const outer = reporters.get(context);
  reporters.set(context, details);
  const beat = () => context.heartbeat(reporters.get(context)?.());
  beat();
  const timer = outer === undefined ? setInterval(beat, LIMITS.heartbeatEveryMs) : undefined;
  try {
    return await work();
  } catch (error) {
    // Whoever cancels a wait can say what it was for; the reason is what is thrown in the end, whatever is thrown here.
    const reason: unknown = context.cancellationSignal.reason;
    if (reason instanceof CancelledFailure && reason.details.length === 0) reason.details.push(details());
    throw error;
  } finally {
    clearInterval(timer);
    if (outer !== undefined) reporters.set(context, outer);
  }
}

type Options = Pick<SessionOptions, 'replication' | 'settings'>;

/** Opens a session on the database being migrated, on the source, after comparing the server's identity. */
export function openSource(
  deps: ActivityDeps,
  m: Migration,
  role: SessionRole,
  options: Options = {},
): Promise<Session> {
  return open(deps.endpoint(m.plan.source, 'source'), m, m.database, role, options);
}

/** The same on the target. `database`: another one than the one being migrated, e.g. to create that. */
export async function openTarget(
  deps: ActivityDeps,
  m: Migration,
  role: SessionRole,
  options: Options & { database?: string } = {},
): Promise<Session> {
  const endpoint = deps.endpoint(m.plan.target, 'target');
  const session = await open(endpoint, m, options.database ?? m.database, role, options);
  try {
    await bringLedgerUpToDate(session, m.id);
    return session;
  } catch (error) {
    throw asOurs(session, error, "reading the ledger's version");
  }
}

async function open(
  endpoint: Endpoint,
  m: Migration,
  database: string,
  role: SessionRole,
  options: Options,
): Promise<Session> {
  const session = await connectAs(endpoint, m, database, role, options);
  try {
    if (role === 'control') await takeOver(session, m, database);
    return session;
  } catch (error) {
    throw asOurs(session, error, 'ending the sessions of an earlier attempt');
  }
}

async function connectAs(
  endpoint: Endpoint,
  m: Migration,
  database: string,
  role: SessionRole,
  options: Options,
): Promise<Session> {
  const session = await connect(endpoint, {
    ...options,
    database,
    applicationName: applicationName(m.id, role),
    signal: activitySignal(),
  });
  try {
    await requireIdentity(session, m.servers[endpoint.server], endpoint.server === 'source' ? m.sourceOid : null);
    return session;
  } catch (error) {
    throw asOurs(session, error, 'reading which server this is');
  }
}

/**
 * Steps come one after the other, so whatever is there of role `control` is of an earlier attempt, or of a step that was
 * given up: of a worker that is asleep, or cut off. It would wake up at any time and go on: keep locks until then, set a
 * sequence back, make a slot that nobody drops.
 */
const takeOver = (session: Session, m: Migration, database: string): Promise<void> =>
  endSessions(session, database, [applicationName(m.id, 'control')]);

/**
 * More sessions on the target for a step that has `session`, of the same name, so that whoever takes the step over ends
 * all of them; and a step that has been taken over opens none. At most `count`: each is speed, and nothing else, so where
 * the server or the role has no room for more it is those that there are.
 */
export async function openBeside(
  deps: ActivityDeps,
  m: Migration,
  session: Session,
  count: number,
  options: Options,
): Promise<Session[]> {
  const endpoint = deps.endpoint(m.plan.target, 'target');
  const opened: Session[] = [];
  try {
    while (opened.length < count) opened.push(await connectAs(endpoint, m, m.database, 'control', options));
  } catch (error) {
    if (!(error instanceof MigrationError) || error.type !== 'ServerBusy') throw destroyed(opened, error);
  }
  await session.query('SELECT').catch((error: unknown) => {
    throw destroyed(opened, error);
  });
  return opened;
}

function destroyed(sessions: readonly Session[], error: unknown): unknown {
  for (const session of sessions) session.destroy();
  return error;
}

function asOurs(session: Session, error: unknown, doing: string): MigrationError {
  session.destroy();
  activitySignal().throwIfAborted();
  return toMigrationError(error, { server: session.endpoint.server, doing });
}

/** Two workers may resolve one reference to different servers; nothing may be written to the wrong one. */
async function requireIdentity(session: Session, pinned: ServerIdentity, databaseOid: number | null): Promise<void> {
  const { server } = session.endpoint;
  const found = await readIdentity(session);
  if (found.systemIdentifier === pinned.systemIdentifier && (databaseOid === null || databaseOid === found.databaseOid))
    return;
  const what =
    found.systemIdentifier === pinned.systemIdentifier ? 'another database of the same name' : 'another server';
  throw new MigrationError(
    'WrongServer',
    `The ${server} that this worker reaches is ${what} than the one that was validated ` +
      `(system identifier ${found.systemIdentifier} instead of ${pinned.systemIdentifier}, database oid ${found.databaseOid}).`,
  );
}

/** Opens, works, closes; an error of the server becomes one of ours, saying what was being done. */
export async function withSession<T>(
  opening: Promise<Session>,
  doing: string,
  work: (session: Session) => Promise<T>,
): Promise<T> {
  const session = await opening;
  try {
    return await work(session);
  } catch (error) {
    // The backend's end is a consequence of our own cancellation, not news.
    activitySignal().throwIfAborted();
    throw toMigrationError(error, { server: session.endpoint.server, doing });
  } finally {
    await session.close();
  }
}

/** `withSession` on both servers, opened at the same time: in a cutover somebody waits for each step. */
export async function withSessions<T>(
  deps: ActivityDeps,
  m: Migration,
  role: SessionRole,
  doing: string,
  work: (source: Session, target: Session) => Promise<T>,
): Promise<T> {
  const [source, target] = await Promise.allSettled([openSource(deps, m, role), openTarget(deps, m, role)]);
  if (source.status === 'rejected' || target.status === 'rejected') {
    for (const opened of [source, target]) if (opened.status === 'fulfilled') await opened.value.close();
    throw source.status === 'rejected' ? source.reason : (target as PromiseRejectedResult).reason;
  }
  return withSession(Promise.resolve(target.value), doing, () =>
    withSession(Promise.resolve(source.value), doing, () => work(source.value, target.value)),
  );
}

/** Waits one poll interval, or throws at once when the activity is cancelled. */
export async function nextPoll(ms: number = LIMITS.pollMs): Promise<void> {
  await Context.current().sleep(ms);
}

/** The same, unless the bell rings before. */
export async function nextPollOr(bell: Bell): Promise<void> {
  await Promise.race([nextPoll(), bell.heard()]);
}

export { redact };
