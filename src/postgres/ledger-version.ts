import { LEDGER_SCHEMA } from '../contract.ts';
import { MigrationError } from '../domain/failure.ts';
import { LIMITS } from '../domain/limits.ts';
import type { Session } from './connection.ts';

/**
 * The first takes a ledger of version 1 to version 2, the next one that to version 3, and so on. Each is SQL that keeps
 * what the ledger says, and makes the same tables as a new ledger has (src/postgres/ledger.ts). One that was released
 * never changes: somebody's migration has gone through it.
 */
const STEPS: readonly string[] = [];

/** Of a ledger that is made today. */
export const LEDGER_VERSION = 1 + STEPS.length;

/**
 * Brings this migration's ledger up to this worker's version, when an older worker has made it. Does nothing while the
 * database has none, or that of another migration, which is for others to say.
 * @throws MigrationError `WorkerOutdated` when a newer worker has been here: its tables may say what this one cannot read
 */
export async function bringLedgerUpToDate(
  target: Session,
  migrationId: string,
  steps: readonly string[] = STEPS,
): Promise<void> {
  const newest = 1 + steps.length;
  // A schema of that name may be somebody else's, which is for validation to say.
  const { found } = await target.one<{ found: boolean }>(
    `SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass($1) AND attname = 'ledger_version') AS found`,
    [`${LEDGER_SCHEMA}.migration`],
  );
  if (!found) return;
  const version = await readVersion(target, migrationId);
  if (version === null || version === newest) return;
  if (version > newest)
    throw new MigrationError(
      'WorkerOutdated',
      `The bookkeeping on the target is of version ${version}, made by a newer pgtransit; this worker knows it up to version ${newest}.`,
    );
  await target.transaction(async () => {
    // The session may be one of those that are read-only, lest they change something by accident.
    await target.query('SET TRANSACTION READ WRITE');
    // A lane of an older worker may hold its rows for hours, and nobody else may have to queue behind us meanwhile.
    await target.query(`SET LOCAL lock_timeout = ${LIMITS.ledgerLockTimeoutMs}`);
    await target.query('SET LOCAL synchronous_commit = on');
    // Another worker may be doing the same.
    const locked = await readVersion(target, migrationId, 'FOR UPDATE');
    if (locked === null || locked >= newest) return;
    for (const step of steps.slice(locked - 1)) await target.query(step);
    await target.query(`UPDATE ${LEDGER_SCHEMA}.migration SET ledger_version = $1`, [newest]);
  });
}

async function readVersion(
  target: Session,
  migrationId: string,
  locking: '' | 'FOR UPDATE' = '',
): Promise<number | null> {
  const rows = await target.query<{ version: number }>(
    `SELECT ledger_version AS version FROM ${LEDGER_SCHEMA}.migration WHERE id = $1 ${locking}`,
    [migrationId],
  );
  return rows[0]?.version ?? null;
}
