import { LEDGER_SCHEMA, NAME_PREFIX } from '../src/contract.ts';
import { MigrationError } from '../src/domain/failure.ts';
import { LIMITS } from '../src/domain/limits.ts';
import type { Migration } from '../src/domain/migration.ts';
import { LOCKED_OUT } from '../src/domain/progress.ts';
import { analyzeTables } from '../src/postgres/analyze.ts';
import type { Session } from '../src/postgres/connection.ts';
import type { EntryRow } from '../src/postgres/entry.ts';
import { ENTRY_SETTINGS, lockSchemaWork, markDone, nextEntries } from '../src/postgres/entry.ts';
import { readFence } from '../src/postgres/fence.ts';
import { dropLedger, ledgerExists, requireOwnLedger } from '../src/postgres/ledger.ts';
import { applyLeniently } from '../src/postgres/lenient.ts';
import { grantsAsSql } from '../src/postgres/lock-out.ts';
import { sqlstateOf, toMigrationError } from '../src/postgres/sqlstate.ts';
import type { ActivityDeps } from './context.ts';
import { heartbeating, openTarget, withSession } from './context.ts';

export interface WrittenReport {
  tables: number;
  rows: number;
  bytes: number;
  warnings: string[];
}

export function createFinishActivities(deps: ActivityDeps) {
  return {
    /** What the ledger has to say, before it is dropped. */
    async readReport(m: Migration): Promise<WrittenReport> {
      return withSession(openTarget(deps, m, 'control'), 'reading the ledger', async (target) => {
        await requireOwnLedger(target, m);
        const written = await readWritten(target);
        const fence = await readFence(target);
        if (fence?.kind !== 'lock-out') return written;
        const sql = grantsAsSql(m.database, fence);
        const message = `${LOCKED_OUT} To let them in again: ${sql}`;
        return { ...written, warnings: [...written.warnings, message] };
      });
    },

    /**
     * What `finish` does, but for the bookkeeping, which stays while the source follows the target: the application finds
     * everything there.
     */
    async settle(m: Migration): Promise<{ warnings: string[] }> {
      const opening = openTarget(deps, m, 'control', { settings: ENTRY_SETTINGS });
      return withSession(opening, 'finishing', async (target) => {
        await requireOwnLedger(target, m);
        return { warnings: await settleTarget(target, (entries) => markDone(target, entries)) };
      });
    },

    /**
     * Analyzes what nobody has, then ends: one transaction drops our schema and brings what would have hit our own
     * sessions, event triggers and database settings. Without a ledger that has happened already.
     */
    async finish(m: Migration): Promise<{ warnings: string[] }> {
      const opening = openTarget(deps, m, 'control', { settings: ENTRY_SETTINGS });
      return withSession(opening, 'finishing', async (target) => {
        if (!(await ledgerExists(target))) return { warnings: [] };
        await requireOwnLedger(target, m);
        await requireNoSubscription(target, m);
        return { warnings: await settleTarget(target, () => dropLedger(target)) };
      });
    },
  };
}

/** Statistics, then what would have hit our own sessions, in one transaction with `andThen`. */
async function settleTarget(target: Session, andThen: (entries: readonly EntryRow[]) => Promise<unknown>) {
  await lockSchemaWork(target);
  let current = '';
  const warnings = await heartbeating(
    () => ({ current }),
    () => analyzeTables(target, (table) => (current = `ANALYZE ${table}`)),
  );
  return [...warnings, ...(await end(target, andThen))];
}

async function readWritten(target: Session): Promise<WrittenReport> {
  const numbers = await target.one<Omit<WrittenReport, 'warnings'>>(
    `SELECT (SELECT count(*) FROM ${LEDGER_SCHEMA}.relation)::float8 AS tables,
            (SELECT coalesce(sum(bytes), 0) FROM ${LEDGER_SCHEMA}.relation)::float8 AS bytes,
            (SELECT coalesce(sum(rows), 0) FROM ${LEDGER_SCHEMA}.unit WHERE kind = 'copy' AND state = 'done')::float8 AS rows`,
  );
  const rows = await target.query<{ message: string; total: number }>(
    `SELECT message, (count(*) OVER ())::float8 AS total FROM ${LEDGER_SCHEMA}.event WHERE warning ORDER BY id LIMIT $1`,
    [LIMITS.warningsInReport],
  );
  const more = (rows[0]?.total ?? 0) - rows.length;
  const warnings = rows.map(({ message }) => message.slice(0, LIMITS.warningCharacters));
  return { ...numbers, warnings: more > 0 ? [...warnings, `And ${more} more warnings.`] : warnings };
}

/** Its slot could no longer be found without the ledger. */
async function requireNoSubscription(target: Session, m: Migration): Promise<void> {
  const [left] = await target.query<{ name: string }>(
    `SELECT subname AS name FROM pg_subscription
      WHERE starts_with(subname, $1) AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())`,
    [`${NAME_PREFIX}${m.id}_`],
  );
  if (left === undefined) return;
  throw new MigrationError(
    'NotComplete',
    `Subscription "${left.name}" is still there on database "${m.database}" of the target.`,
    {
      object: left.name,
    },
  );
}

/** Everything or nothing: a retry finds the ledger and all of it to do, or no ledger and nothing to do. */
async function end(target: Session, andThen: (entries: readonly EntryRow[]) => Promise<unknown>): Promise<string[]> {
  const entries = await nextEntries(target, ['last'], -1, Number.MAX_SAFE_INTEGER);
  const doing = 'restoring event triggers and database settings';
  try {
    await target.transaction(async () => {
      await andThen(entries);
      if (entries.length > 0) await target.query(entries.map(({ sql }) => sql).join('\n'));
    });
    return [];
  } catch (error) {
    const failure = toMigrationError(error, { server: 'target', doing, otherwise: 'SchemaFailed' });
    if (failure.retryable || target.closed) throw failure;
  }
  return target.transaction(async () => {
    await andThen(entries);
    const warnings: string[] = [];
    for (const entry of entries) warnings.push(...(await runLast(target, entry)));
    return warnings;
  });
}

async function runLast(target: Session, entry: EntryRow): Promise<string[]> {
  await target.query('SAVEPOINT entry');
  try {
    await target.query(entry.sql);
    return [];
  } catch (error) {
    const { label } = entry;
    const failure = toMigrationError(error, {
      server: 'target',
      doing: `restoring ${label}`,
      object: label,
      otherwise: 'SchemaFailed',
    });
    if (failure.retryable || target.closed) throw failure;
    await target.query('ROLLBACK TO SAVEPOINT entry');
    const warnings = await applyLeniently(target, entry, sqlstateOf(error));
    if (warnings === null) throw failure;
    return warnings;
  }
}
