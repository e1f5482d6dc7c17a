import { setTimeout as delay } from 'node:timers/promises';
import { LEDGER_SCHEMA } from '../contract.ts';
import { MigrationError } from '../domain/failure.ts';
import { LIMITS } from '../domain/limits.ts';
import type { Session } from './connection.ts';
import { runSecretly } from './secret-statement.ts';
import { sqlstateOf } from './sqlstate.ts';
import { subscriptionCommands } from './subscription-commands.ts';

const INSUFFICIENT_PRIVILEGE = '42501';

/** Subscribes to the slot of the same name, by these publications, without copying: the rows are there. */
export async function createSubscription(
  target: Session,
  name: string,
  publications: readonly string[],
  conninfo: string,
): Promise<void> {
  const [existing] = await target.query<{ slot: string | null; enabled: boolean }>(
    `SELECT subslotname AS slot, subenabled AS enabled FROM pg_subscription
      WHERE subname = $1 AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())`,
    [name],
  );
  const commands = await subscriptionCommands(target);
  if (existing === undefined) {
    await target.transaction(async () => {
      const refused = await runSecretly(target, commands.create(name, publications), conninfo);
      if (refused !== null) throw Object.assign(new Error(refused.message), { code: refused.sqlstate });
    });
  } else if (!existing.enabled) await target.query(commands.enable(name));
}

/** What its stream brings. The subscription's word for it is what counts, since its apply worker asks for these. */
export async function subscribedPublications(target: Session, name: string): Promise<string[]> {
  const [row] = await target.query<{ publications: string[] }>(
    'SELECT subpublications AS publications FROM pg_subscription WHERE subname = $1',
    [name],
  );
  return row?.publications ?? [name];
}

/**
 * The end of the last transaction of the source that was applied, confirmed or not: its origin moves in the same
 * transaction as the rows. Null where the role may not read it; `0/0` before the first.
 */
export async function appliedLsn(target: Session, name: string): Promise<string | null> {
  const { may } = await target.one<{ may: boolean }>(
    `SELECT has_function_privilege('pg_replication_origin_progress(text, boolean)', 'EXECUTE') AS may`,
  );
  if (!may) return null;
  const [row] = await target.query<{ lsn: string | null }>(
    `SELECT pg_replication_origin_progress('pg_' || oid, false)::text AS lsn FROM pg_subscription WHERE subname = $1`,
    [name],
  );
  return row?.lsn ?? '0/0';
}

/**
 * Disables them and waits until no apply worker is left: only then is what was applied all that will be. A worker ends
 * between two transactions; one that does not come to that is ended, and what it had in hand stays in the slot.
 */
export async function disableSubscriptions(target: Session, names: readonly string[]): Promise<void> {
  const commands = await subscriptionCommands(target);
  for (const name of names) await target.query(commands.disable(name));
  for (const patientUntil = Date.now() + LIMITS.workerPatienceMs; ; await delay(LIMITS.drainPollMs)) {
    const working = await target.query<{ pid: number }>(
      'SELECT pid FROM pg_stat_subscription WHERE subname = ANY ($1) AND pid IS NOT NULL',
      [names],
    );
    if (working.length === 0) return;
    if (Date.now() > patientUntil) for (const { pid } of working) await endWorker(target, pid);
  }
}

/** One that a superuser owns only a superuser may end; then what it waits for has to end. */
async function endWorker(target: Session, pid: number): Promise<void> {
  try {
    await target.query('SELECT pg_terminate_backend($1)', [pid]);
  } catch (error) {
    if (sqlstateOf(error) !== INSUFFICIENT_PRIVILEGE) throw error;
    const { blockers } = await target.one<{ blockers: string }>(
      `SELECT coalesce(nullif(array_to_string(pg_blocking_pids($1), ', '), ''), 'none that is known') AS blockers`,
      [pid],
    );
    throw new MigrationError(
      'PrivilegeMissing',
      `The apply worker on the target, backend ${pid}, does not come to the end of what it has in hand, and our role ` +
        `may not end it. It waits for these backends: ${blockers}.`,
      { next: 'End those backends on the target, or let a superuser end the worker, then resolve with retry.' },
    );
  }
}

/** One that somebody has dropped is found out by whoever waits for it, and says so. */
export async function enableSubscriptions(target: Session, names: readonly string[]): Promise<void> {
  const disabled = (await readWorkers(target, names)).filter(({ enabled }) => !enabled);
  if (disabled.length === 0) return;
  const commands = await subscriptionCommands(target);
  for (const { name } of disabled) await target.query(commands.enable(name));
}

/**
 * Drops the subscription only; the slot on the source is dropped there, by its own name. The drop ends the apply worker,
 * even one that waits for a lock, which disabling alone would wait for.
 */
export async function dropSubscription(target: Session, name: string): Promise<void> {
  for (const command of (await subscriptionCommands(target)).drop(name)) await target.query(command);
}

/** The generations that were subscribed to and are not any more: somebody has dropped the subscription. */
export async function droppedSubscriptions(target: Session): Promise<string[]> {
  const rows = await target.query<{ name: string }>(
    `SELECT name FROM ${LEDGER_SCHEMA}.generation
      WHERE slot AND state = 'streaming' AND name NOT IN (
        SELECT subname FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()))
      ORDER BY number`,
  );
  return rows.map(({ name }) => name);
}

export const wasDropped = (name: string): string =>
  `Subscription ${name} was dropped on the target, and with it the knowledge of how far it had come.`;

/** Of each subscription: may it have an apply worker, and has it one? */
export const readWorkers = (
  target: Session,
  names: readonly string[],
): Promise<{ name: string; enabled: boolean; running: boolean }[]> =>
  target.query(
    `SELECT subname AS name, subenabled AS enabled,
            EXISTS (SELECT FROM pg_stat_subscription w WHERE w.subid = s.oid AND w.pid IS NOT NULL) AS running
       FROM pg_subscription s WHERE subname = ANY ($1) ORDER BY subname`,
    [names],
  );

export interface SubscriptionHealth {
  /** All tables are in state `r`, and every apply worker runs. */
  ready: boolean;
  /** As the server counts them since the subscription was made; null before 15, where the server does not count them. */
  applyErrors: number | null;
  /** Some apply worker is not there. */
  idle: boolean;
  waitingFor: string;
}

export async function readSubscriptions(target: Session, names: readonly string[]): Promise<SubscriptionHealth> {
  const errors =
    target.version >= 150000
      ? '(SELECT coalesce(sum(apply_error_count), 0) FROM pg_stat_subscription_stats WHERE subname = ANY ($1))::float8'
      : 'NULL::float8';
  const row = await target.one<{ missing: number; idle: number; tables: number; errors: number | null }>(
    `SELECT (cardinality($1::text[]) - (SELECT count(*) FROM pg_subscription WHERE subname = ANY ($1)))::float8 AS missing,
            (SELECT count(*) FROM pg_stat_subscription WHERE subname = ANY ($1) AND pid IS NULL)::float8 AS idle,
            (SELECT count(*) FROM pg_subscription_rel r JOIN pg_subscription s ON s.oid = r.srsubid
              WHERE s.subname = ANY ($1) AND r.srsubstate <> 'r')::float8 AS tables,
            ${errors} AS errors`,
    [names],
  );
  const waitingFor =
    row.missing > 0
      ? `${row.missing} subscriptions are missing`
      : row.idle > 0
        ? 'an apply worker does not run'
        : row.tables > 0
          ? `${row.tables} tables are not ready`
          : '';
  return { ready: waitingFor === '', applyErrors: row.errors, idle: row.idle > 0, waitingFor };
}
