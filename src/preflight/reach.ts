import { MigrationError } from '../domain/failure.ts';
import { LIMITS } from '../domain/limits.ts';
import type { Session } from '../postgres/connection.ts';
import type { ConnInfo } from '../postgres/conninfo.ts';
import { formatConnInfo, parseConnInfo } from '../postgres/conninfo.ts';
import { hostsOf } from '../postgres/hosts.ts';
import { quoteIdent } from '../postgres/identifier.ts';
import { runSecretly } from '../postgres/secret-statement.ts';
import { redact, sqlstateOf } from '../postgres/sqlstate.ts';
import { maySubscribe, readExtras } from '../postgres/subscription-commands.ts';
import { subscriptionConnInfo } from '../postgres/subscription-conninfo.ts';
import type { DatabaseContext, Seen } from './check.ts';
import { shellQuote } from './shell.ts';

type Outcome = 'reached' | 'forbidden' | { refusal: string };

/**
 * The target server itself, and not only this worker, must get into the source with what its subscription will hold:
 * another network, another line of pg_hba.conf, a password that a role without superuser rights has to give. Nothing but
 * a connection that the target makes can tell.
 */
export async function sourceForTarget(context: DatabaseContext): Promise<Seen[]> {
  const { target } = context;
  let info: ConnInfo;
  try {
    info = subscriptionInfo(context);
  } catch (error) {
    if (!(error instanceof MigrationError)) throw error;
    return [{ message: error.message, remedy: error.details.next }];
  }
  let outcome = await trySubscription(target, formatConnInfo(info), LIMITS.targetConnectSeconds * hostsOf(info).length);
  if (outcome === 'forbidden') outcome = await tryDblink(target, formatConnInfo(info));
  if (outcome === 'reached') return [];
  const address = `${info['host'] ?? info['hostaddr'] ?? ''}:${info['port'] ?? '5432'}`;
  if (outcome === 'forbidden')
    return [
      {
        unknown: true,
        severity: 'warning',
        message: `Whether the target server reaches the source at ${address} could not be tried: our role may neither create a subscription in ${context.targetExists ? `database ${quoteIdent(context.database)}` : 'the maintenance database'} of the target nor use dblink there.`,
        remedy: `On the target's host: psql ${shellQuote(formatConnInfo(withoutPassword(info)))} -c 'SELECT 1'`,
      },
    ];
  const { refusal } = outcome;
  return [
    {
      message: `The target server cannot subscribe to the source at ${address}; a trial that was rolled back says: ${withoutSecrets(refusal, info)}`,
      remedy:
        'Let the target server into the source (network, pg_hba.conf, a password that the source asks for), say in "sourceForTarget" how it gets there, or set "method" to "dump".',
    },
  ];
}

/** What the subscription will be given. dblink minds the timeout; a subscription does not, and is bounded otherwise. */
function subscriptionInfo({ plan, sourceForTarget, database }: DatabaseContext): ConnInfo {
  const reader = plan.sourceForTarget === null ? 'worker' : 'target-server';
  const info = parseConnInfo(subscriptionConnInfo(sourceForTarget, database, reader), 'the plan');
  return { ...info, connect_timeout: String(LIMITS.targetConnectSeconds) };
}

const INSUFFICIENT_PRIVILEGE = '42501';
const CANCELLED = '57014';
/** Of one check, with all hosts of the source. */
const MOST_SECONDS = LIMITS.checkTimeoutMs / 1000;

/**
 * A subscription that connects, in a transaction that is rolled back whatever happens, also when we are killed: neither
 * catalog ever shows it, there is no slot, and nothing is started.
 */
export async function trySubscription(target: Session, conninfo: string, seconds: number): Promise<Outcome> {
  await target.query(`BEGIN READ WRITE; SET LOCAL statement_timeout = '${Math.min(seconds, MOST_SECONDS)}s'`);
  try {
    const refused = await runSecretly(
      target,
      `format('CREATE SUBSCRIPTION %I CONNECTION %L PUBLICATION pgtransit
                 WITH (connect = true, enabled = false, create_slot = false, slot_name = NONE, copy_data = false)',
              'pgtransit_trial_' || pg_backend_pid(), current_setting('pgtransit.hidden'))`,
      conninfo,
    );
    if (refused === null) return 'reached';
    if (refused.sqlstate === CANCELLED)
      return { refusal: `there was no answer within ${Math.min(seconds, MOST_SECONDS)} s.` };
    return refused.sqlstate === INSUFFICIENT_PRIVILEGE ? 'forbidden' : { refusal: refused.message };
  } catch (error) {
    if (sqlstateOf(error) === INSUFFICIENT_PRIVILEGE) return 'forbidden';
    throw error;
  } finally {
    await target.query('ROLLBACK').catch(() => target.destroy());
  }
}

/**
 * Where dblink is to be had: an ordinary connection, which proves the same but for the REPLICATION attribute. What had to
 * be made for it is rolled back.
 */
async function tryDblink(target: Session, conninfo: string): Promise<Outcome> {
  await target.query('BEGIN READ WRITE');
  try {
    const dblink = await findDblink(target);
    if (dblink === null) return 'forbidden';
    await target.query(`SELECT FROM ${dblink}($1, 'SELECT true') AS d (reached bool)`, [conninfo]);
    return 'reached';
  } catch (error) {
    const state = sqlstateOf(error);
    if (state === INSUFFICIENT_PRIVILEGE) return 'forbidden';
    // 08001: not reached; 2F003: the source asked for no password, and our role must give one.
    if (state === null || !(error instanceof Error) || !['08001', '2F003'].includes(state)) throw error;
    const { detail } = error as Error & { detail?: string };
    return { refusal: `${error.message}${detail === undefined ? '' : `: ${detail}`}` };
  } finally {
    await target.query('ROLLBACK').catch(() => target.destroy());
  }
}

/** Of the extension dblink, or what aiven_extras has of it. */
async function findDblink(target: Session): Promise<string | null> {
  const { available, installed } = await readExtras(target);
  if (available && !installed && !(await maySubscribe(target))) await target.query('CREATE EXTENSION aiven_extras');
  const [found] = await target.query<{ name: string }>(
    `SELECT p.oid::regproc::text AS name FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid
       JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND e.oid = d.refobjid AND d.deptype = 'e'
      WHERE (e.extname, p.proname) IN (('dblink', 'dblink'), ('aiven_extras', 'dblink_record_execute'))
        AND pg_get_function_identity_arguments(p.oid) = 'text, text' AND has_schema_privilege(p.pronamespace, 'USAGE') LIMIT 1`,
  );
  return found?.name ?? null;
}

const withoutPassword = (info: ConnInfo): ConnInfo =>
  Object.fromEntries(Object.entries(info).filter(([key]) => !/password|secret|scram/.test(key)));

/** libpq names host, port and user only; this is for what a later one may say. */
export function withoutSecrets(text: string, info: ConnInfo): string {
  const oneLine = redact(text).replace(/\s+/g, ' ').trim();
  const password = info['password'] ?? '';
  return password === '' ? oneLine : oneLine.replaceAll(password, '***');
}
