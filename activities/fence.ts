import { NAME_PREFIX } from '../src/contract.ts';
import { MigrationError } from '../src/domain/failure.ts';
import { LIMITS } from '../src/domain/limits.ts';
import type { Migration } from '../src/domain/migration.ts';
import type { Session } from '../src/postgres/connection.ts';
import { liftFence, raiseFence } from '../src/postgres/fence.ts';
import { recordWarning, requireOwnLedger } from '../src/postgres/ledger.ts';
import type { ActivityDeps } from './context.ts';
import { nextPoll, openSource, openTarget, withSession } from './context.ts';

export function createFenceActivities(deps: ActivityDeps) {
  return {
    /**
     * Read-only by default from now on, and no session from before left. What was set before is booked first, so that
     * it can be put back. A session may still say `SET`: what it writes after the mark is in the report.
     */
    async fence(m: Migration): Promise<void> {
      await withSession(openTarget(deps, m, 'control'), 'booking the fence', (target) =>
        withSession(openSource(deps, m, 'control'), 'fencing the source', async (source) => {
          await requireOwnLedger(target, m);
          await requireRights(source);
          await raiseFence(source, target, m.database);
          const { at } = await source.one<{ at: string }>('SELECT clock_timestamp()::text AS at');
          // Twice: a session that was starting when the setting changed has read the old one, and shows up a moment later.
          for (let quiet = 0; quiet < 2; await nextPoll(LIMITS.drainPollMs)) {
            const left = await source.query(
              `SELECT pg_terminate_backend(pid) FROM ${WRITERS} AND backend_start <= $2 AND NOT ${OUT_OF_REACH}`,
              [`${NAME_PREFIX}${m.id}_`, at],
            );
            quiet = left.length === 0 ? quiet + 1 : 0;
          }
          await warnOfSuperusers(source, target, m);
        }),
      );
    },

    async unfence(m: Migration): Promise<void> {
      await withSession(openTarget(deps, m, 'control'), 'reading the fence', (target) =>
        withSession(openSource(deps, m, 'control'), 'lifting the fence', async (source) => {
          await requireOwnLedger(target, m);
          await liftFence(source, target);
        }),
      );
    },
  };
}

/** The sessions of others on this database; $1: what the names of our own begin with. */
const WRITERS = `pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'
  AND pid <> pg_backend_pid() AND left(application_name, length($1)) <> $1`;

/** Only superusers end sessions of superusers, among which are a managed server's own. */
const OUT_OF_REACH = `(NOT current_setting('is_superuser')::bool AND coalesce((SELECT rolsuper FROM pg_roles WHERE oid = usesysid), false))`;

/**
 * Without the first the server hides when other sessions began, and the fence would take writers for new, read-only
 * sessions; without the second it would end halfway.
 */
async function requireRights(source: Session): Promise<void> {
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

/** They may go on writing: what they wrote until the end is counted, and the report says who it may have been. */
async function warnOfSuperusers(source: Session, target: Session, m: Migration): Promise<void> {
  const left = await source.query<{ who: string }>(
    `SELECT format('pid %s of %I (%s)', pid, usename, application_name) AS who FROM ${WRITERS} AND ${OUT_OF_REACH}
      ORDER BY pid LIMIT ${LIMITS.namesInMessage}`,
    [`${NAME_PREFIX}${m.id}_`],
  );
  if (left.length === 0) return;
  const sessions = left.map(({ who }) => who).join(', ');
  const message = `The fence could not end the sessions of superusers: ${sessions}. What they write stays on the source.`;
  await recordWarning(target, 'fencing', message);
}
