import { LEDGER_SCHEMA, NAME_PREFIX } from '../src/contract.ts';
import { formatBytes } from '../src/domain/format.ts';
import { LIMITS } from '../src/domain/limits.ts';
import type { Verdict } from '../src/domain/readiness.ts';
import { formatDuration, judgeRate, ok, problem, unknown } from '../src/domain/readiness.ts';
import { quoteIdent, quoteLiteral } from '../src/postgres/identifier.ts';
import { readSlot } from '../src/postgres/slot.ts';
import { droppedSubscriptions, readSubscriptions, readWorkers, wasDropped } from '../src/postgres/subscription.ts';
import type { ReadinessContext } from './readiness-check.ts';
import { someOf } from './readiness-check.ts';
import { sample } from './replication.ts';

const NO_STREAM = 'Nothing is replicated yet.';

/** What is restored last is restored by the cutover's end. */
export async function copyComplete({ target }: ReadinessContext): Promise<Verdict> {
  const left = await target().one<{ units: number; entries: number; open: number; generations: number }>(
    `SELECT (SELECT count(*) FROM ${LEDGER_SCHEMA}.unit WHERE state = 'todo')::float8 AS units,
            (SELECT count(*) FROM ${LEDGER_SCHEMA}.entry WHERE state = 'todo' AND stage <> 'last')::float8 AS entries,
            (SELECT count(*) FROM ${LEDGER_SCHEMA}.generation WHERE state = 'open')::float8 AS open,
            (SELECT count(*) FROM ${LEDGER_SCHEMA}.generation)::float8 AS generations`,
  );
  if (left.units + left.entries > 0)
    return problem(
      `${left.units} pieces of tables and indexes and ${left.entries} objects of the schema are left to do.`,
      'Wait.',
    );
  if (left.open > 0 || left.generations === 0) return problem('The copy is not sealed.', 'Wait.');
  return ok('Every row that was to be copied, and every object, is there.');
}

export async function streaming({ source, target, names }: ReadinessContext): Promise<Verdict> {
  const generations = await names();
  if (generations.length === 0) return problem(NO_STREAM, 'Wait.');
  const [dropped] = await droppedSubscriptions(target());
  if (dropped !== undefined) return problem(wasDropped(dropped), 'Start the migration again.');
  const disabled = (await readWorkers(target(), generations)).find(({ enabled }) => !enabled);
  if (disabled !== undefined)
    return problem(
      `Subscription ${disabled.name} is disabled on the target.`,
      `ALTER SUBSCRIPTION ${quoteIdent(disabled.name)} ENABLE; -- on the target`,
    );
  const health = await readSubscriptions(target(), generations);
  if (!health.ready) return problem(`On the target ${health.waitingFor}.`, "Look into the target's log.");
  for (const name of generations) {
    const slot = await readSlot(source(), name);
    if (slot === null) return problem(`Slot ${name} is not on the source any more.`, 'Start the migration again.');
    if (slot.lost !== null) return problem(`Slot ${name} is lost: ${slot.lost}.`, 'Start the migration again.');
  }
  const idle = await source().query<{ name: string }>(
    'SELECT slot_name AS name FROM pg_replication_slots WHERE slot_name = ANY ($1) AND NOT active ORDER BY 1',
    [generations],
  );
  if (idle.length > 0)
    return problem(
      `The target does not read from slot ${someOf(
        idle.map(({ name }) => name),
        LIMITS.namesInMessage,
      )}.`,
      'Look whether the target reaches the source.',
    );
  return ok(`${generations.length} of ${generations.length} streams run.`);
}

/** As the gate of the cutover would see it. */
export async function lag({ m, source, names }: ReadinessContext): Promise<Verdict> {
  const generations = await names();
  if (generations.length === 0) return problem(NO_STREAM, 'Wait.');
  const most = m.plan.stop.maxLagBytes;
  for (let passed = 0; passed < LIMITS.gateSamples; passed += 1)
    if (!(await sample(source(), generations, most)))
      return problem(
        `The target did not confirm within a second what was written before, but for ${formatBytes(most)}.`,
        'Wait until it has caught up, or allow more with "stop.maxLagBytes".',
      );
  return ok(`${LIMITS.gateSamples} samples in a row were at most ${formatBytes(most)} behind a moment before.`);
}

export async function applyRate({ m, names, samples }: ReadinessContext): Promise<Verdict> {
  if ((await names()).length === 0) return problem(NO_STREAM, 'Wait.');
  const { before, now } = await samples();
  return judgeRate(before, now, m.plan.stop.maxLagBytes);
}

/** The server only counts them, so without an earlier look nobody knows whether one is new: that is not ok. */
export async function applyErrors({ names, samples }: ReadinessContext): Promise<Verdict> {
  if ((await names()).length === 0) return problem(NO_STREAM, 'Wait.');
  const { before, now, ofEarlierLook } = await samples();
  const log = "The target's server log names the relation and the row of each.";
  if (now.applyErrors === null)
    return unknown(
      'The target counts no apply errors: PostgreSQL does since 15.',
      "Look into the target's server log for errors of the apply worker.",
    );
  const fresh = now.applyErrors - (before.applyErrors ?? 0);
  if (fresh > 0) return problem(`${fresh} apply errors since the look before, ${now.applyErrors} in all.`, log);
  if (now.applyErrors > 0 && !ofEarlierLook)
    return problem(`${now.applyErrors} apply errors so far; the next look tells whether more have come.`, log);
  return ok(now.applyErrors === 0 ? 'None.' : `None new; ${now.applyErrors} in all.`);
}

export async function preparedTransactions({ source }: ReadinessContext): Promise<Verdict> {
  const rows = await source().query<{ gid: string; owner: string; seconds: number }>(
    `SELECT gid, owner, extract(epoch FROM clock_timestamp() - prepared)::float8 AS seconds
       FROM pg_prepared_xacts WHERE database = current_database() ORDER BY prepared`,
  );
  if (rows.length === 0) return ok('None.');
  const said = rows.map(
    ({ gid, owner, seconds }) => `${quoteLiteral(gid)} of ${quoteIdent(owner)} for ${formatDuration(seconds)}`,
  );
  return problem(
    `Prepared and not ended: ${someOf(said, LIMITS.namesInMessage)}.`,
    `COMMIT PREPARED ${quoteLiteral(rows[0]?.gid ?? '')}; or ROLLBACK PREPARED; -- on the source`,
  );
}

/** The fence waits for them, or ends them. */
export async function longTransactions({ m, source }: ReadinessContext): Promise<Verdict> {
  const { sees } = await source().one<{ sees: boolean }>(`SELECT pg_has_role('pg_read_all_stats', 'USAGE') AS sees`);
  const rows = await source().query<{
    pid: number;
    usename: string | null;
    application: string;
    seconds: number | null;
  }>(
    `SELECT pid, usename, application_name AS application,
            extract(epoch FROM clock_timestamp() - xact_start)::float8 AS seconds
       FROM pg_stat_activity
      WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
        AND left(application_name, length($1)) <> $1 AND xact_start < clock_timestamp() - $2 * interval '1 ms'
      ORDER BY xact_start`,
    [`${NAME_PREFIX}${m.id}_`, LIMITS.longTransactionMs],
  );
  const said = rows.map(
    ({ pid, usename, application, seconds }) =>
      `pid ${pid} of ${quoteIdent(usename ?? '?')}${application === '' ? '' : ` (${application})`} for ${formatDuration(seconds ?? 0)}`,
  );
  if (rows.length > 0)
    return problem(
      `Open for more than ${formatDuration(LIMITS.longTransactionMs / 1000)}: ${someOf(said, LIMITS.namesInMessage)}.`,
      `Let them end, or: SELECT pg_terminate_backend(${rows[0]?.pid ?? 0}); -- on the source`,
    );
  if (!sees)
    return unknown(
      'Our role may not see when transactions of other roles began.',
      'GRANT pg_read_all_stats to our role on the source.',
    );
  return ok('None.');
}
