import { NAME_PREFIX } from '../src/contract.ts';
import { MigrationError } from '../src/domain/failure.ts';
import { LIMITS } from '../src/domain/limits.ts';
import type { Migration } from '../src/domain/migration.ts';
import type { FenceOfOurs } from '../src/domain/plan.ts';
import type { Session } from '../src/postgres/connection.ts';
import { bookFence, forgetFence, liftFence, readFence, readOnlySetting, setReadOnly } from '../src/postgres/fence.ts';
import { quoteIdent } from '../src/postgres/identifier.ts';
import { recordWarning, requireOwnLedger } from '../src/postgres/ledger.ts';
import { lockOut, membersOf, readConnectGrants, rolesToAdmit } from '../src/postgres/lock-out.ts';
import { openConsole, pause, pooledNames, resume, routes } from '../src/postgres/pgbouncer.ts';
import type { ActivityDeps } from './context.ts';
import { activitySignal, heartbeating, nextPoll, openTarget, withSession, withSessions } from './context.ts';
import { pgbouncerConsole, sourceForTarget } from './endpoints.ts';

export function createFenceActivities(deps: ActivityDeps) {
  const onBoth = (m: Migration, doing: string, work: (source: Session, target: Session) => Promise<void>) =>
    withSessions(deps, m, 'control', doing, async (source, target) => {
      await requireOwnLedger(target, m);
      await work(source, target);
    });

  return {
    /**
     * Keeps writers out of the source. What there was before is booked first, so that it can be put back. Sessions of this
     * migration, and walsenders, stay.
     */
    async fence(m: Migration, kind: FenceOfOurs): Promise<void> {
      await onBoth(m, 'fencing the source', async (source, target) => {
        // One of an earlier stop that could not be put back then.
        if (((await readFence(target))?.kind ?? kind) !== kind) await lift(deps, m, source, target);
        if (kind === 'pgbouncer') await pauseClients(deps, m, target);
        else await fenceServer(deps, m, kind, source, target);
        await warnOfOthers(source, target, m, kind);
      });
    },

    /** Puts back whatever is booked, of whatever kind, also of a fence that came only halfway. */
    async unfence(m: Migration): Promise<void> {
      await onBoth(m, 'lifting the fence', (source, target) => lift(deps, m, source, target));
    },

    /**
     * Sends on what PgBouncer holds, now that it leads elsewhere.
     * @throws MigrationError `NotSwitched` when it still leads where it led before
     */
    async resumeClients(m: Migration): Promise<void> {
      await withSession(openTarget(deps, m, 'control'), 'resuming the clients', async (target) => {
        await requireOwnLedger(target, m);
        const fence = await readFence(target);
        if (fence?.kind !== 'pgbouncer') return;
        await onConsole(deps, m, 'resuming PgBouncer', async (console) => {
          const same = (await routes(console, fence.databases)).filter((route) => fence.routes.includes(route));
          if (same.length > 0)
            throw new MigrationError('NotSwitched', `PgBouncer still leads to the source: ${same.join(', ')}.`, {
              object: m.database,
            });
          await resume(console, fence.databases);
        });
        await forgetFence(target);
      });
    },
  };
}

function onConsole<T>(
  deps: ActivityDeps,
  m: Migration,
  doing: string,
  work: (console: Session) => Promise<T>,
): Promise<T> {
  const endpoint = pgbouncerConsole(deps, m.plan);
  if (endpoint === null) throw new MigrationError('FenceFailed', 'The plan names no PgBouncer in "stop.pgbouncer".');
  return withSession(openConsole(endpoint, `${NAME_PREFIX}${m.id}_console`, activitySignal()), doing, work);
}

async function pauseClients(deps: ActivityDeps, m: Migration, target: Session): Promise<void> {
  await onConsole(deps, m, 'pausing PgBouncer', async (console) => {
    const databases = await pooledNames(console, m.database, deps.endpoint(m.plan.source, 'source'));
    await bookFence(target, { kind: 'pgbouncer', databases, routes: await routes(console, databases) });
    await heartbeating(
      () => ({ waitingFor: `the end of what clients of PgBouncer's ${databases.join(', ')} have under way` }),
      () => pause(console, databases),
    );
  });
}

async function fenceServer(
  deps: ActivityDeps,
  m: Migration,
  kind: 'read-only' | 'lock-out',
  source: Session,
  target: Session,
): Promise<void> {
  await requireRights(source);
  if (kind === 'read-only') {
    await bookFence(target, { kind, before: await readOnlySetting(source) });
    await setReadOnly(source, 'on');
  } else {
    const admitted = await rolesToAdmit(source, sourceForTarget(deps, m.plan)['user'] ?? null);
    await requireNoMembers(source, admitted);
    await bookFence(target, { kind, grants: await readConnectGrants(source), admitted });
    await lockOut(source, admitted);
  }
  await endWriters(source, m, kind);
}

/** What the source server knows nothing of is put back here, the rest where `pgtransit cleanup` does it too. */
export async function lift(deps: ActivityDeps, m: Migration, source: Session, target: Session): Promise<void> {
  const fence = await readFence(target);
  if (fence?.kind === 'pgbouncer')
    await onConsole(deps, m, 'resuming PgBouncer', (console) => resume(console, fence.databases));
  await liftFence(source, target);
}

/** The sessions of others on this database; $1: what the names of our own begin with. */
const WRITERS = `pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'
  AND pid <> pg_backend_pid() AND left(application_name, length($1)) <> $1`;

/** Only superusers end sessions of superusers, among which are a managed server's own. */
const OUT_OF_REACH = `(NOT current_setting('is_superuser')::bool AND coalesce((SELECT rolsuper FROM pg_roles WHERE oid = usesysid), false))`;

/**
 * Ends them until none is left: behind a read-only fence none from before it, behind a lock-out none at all.
 * @throws MigrationError `FenceBroken` when new ones keep coming
 */
export async function endWriters(source: Session, m: Migration, kind: 'read-only' | 'lock-out'): Promise<void> {
  const { at } = await source.one<{ at: string }>('SELECT clock_timestamp()::text AS at');
  const giveUpAt = performance.now() + LIMITS.fenceMs;
  // Twice: a session that was starting when the fence went up was let in as before, and shows up a moment later.
  for (let quiet = 0; ; await nextPoll(LIMITS.fencePollMs)) {
    const left = await source.query<{ role: string }>(
      `SELECT usename AS role, pg_terminate_backend(pid) FROM ${WRITERS}
          AND ($2::bool OR backend_start <= $3::timestamptz) AND NOT ${OUT_OF_REACH}`,
      [`${NAME_PREFIX}${m.id}_`, kind === 'lock-out', at],
    );
    quiet = left.length === 0 ? quiet + 1 : 0;
    if (quiet === 2) return;
    if (quiet > 0 || performance.now() < giveUpAt) continue;
    const roles = [...new Set(left.map(({ role }) => quoteIdent(role)))].join(', ');
    throw new MigrationError(
      'FenceBroken',
      `Sessions of ${roles} keep coming to database "${m.database}" on the source: superusers, or who uses the migration's own role, are not kept out.`,
      {
        object: m.database,
        next: `Stop whatever connects as ${roles}, resolve with retry, then send stopReplication again.`,
      },
    );
  }
}

/**
 * Without the first the server hides when other sessions began, and the fence would take writers for new, read-only
 * sessions; without the second it would end halfway.
 */
export async function requireRights(source: Session): Promise<void> {
  const { sees, ends } = await source.one<{ sees: boolean; ends: boolean }>(
    `SELECT pg_has_role('pg_read_all_stats', 'USAGE') AS sees, pg_has_role('pg_signal_backend', 'USAGE') AS ends`,
  );
  if (sees && ends) return;
  throw new MigrationError(
    'PrivilegeMissing',
    `The role on the source may not ${sees ? 'end the sessions of others' : 'see when other sessions began'}, so it cannot end the writers.`,
    { next: 'GRANT pg_read_all_stats, pg_signal_backend to the role on the source, then resolve with retry.' },
  );
}

/** They would be let in with the migration's role. */
async function requireNoMembers(source: Session, admitted: readonly string[]): Promise<void> {
  const [member] = await membersOf(source, admitted);
  if (member === undefined) return;
  const [name, of] = [quoteIdent(member.name), quoteIdent(member.of)];
  throw new MigrationError(
    'PrivilegeMissing',
    `Role ${name} has all rights of ${of}, as which the migration connects, so a lock-out cannot keep it out.`,
    { object: name, next: `REVOKE ${of} FROM ${name}, or use the fence read-only; then resolve with retry.` },
  );
}

/** They may go on writing: what they write stops the cutover, and this says who it may have been. */
async function warnOfOthers(source: Session, target: Session, m: Migration, kind: FenceOfOurs): Promise<void> {
  const left = await source.query<{ who: string }>(
    `SELECT format('pid %s of %I (%s)', pid, usename, application_name) AS who FROM ${WRITERS}
        AND ($2::bool OR ${OUT_OF_REACH}) ORDER BY pid LIMIT ${LIMITS.namesInMessage}`,
    [`${NAME_PREFIX}${m.id}_`, kind === 'pgbouncer'],
  );
  if (left.length === 0) return;
  const sessions = left.map(({ who }) => who).join(', ');
  const what =
    kind === 'pgbouncer'
      ? `The fence did not reach sessions that do not come through PgBouncer: ${sessions}.`
      : `The fence could not end the sessions of superusers: ${sessions}.`;
  await recordWarning(target, 'fencing', `${what} What they write after the mark stops the cutover.`);
}
