import { LEDGER_SCHEMA, NAME_PREFIX } from '../src/contract.ts';
import { formatBytes } from '../src/domain/format.ts';
import { LIMITS } from '../src/domain/limits.ts';
import type { Verdict } from '../src/domain/readiness.ts';
import { ok, problem, unknown } from '../src/domain/readiness.ts';
import type { Session } from '../src/postgres/connection.ts';
import { displayName, quoteIdent, quoteName } from '../src/postgres/identifier.ts';
import { displayView, readPopulated } from '../src/postgres/matview.ts';
import { readRoles } from '../src/postgres/role.ts';
import { fenceRights } from '../src/preflight/fence.ts';
import { describeDifferences, newTables } from './definitions.ts';
import type { ReadinessContext } from './readiness-check.ts';
import { someOf } from './readiness-check.ts';
import { movedBehind, sequencesMovedBehind } from './replication-guards.ts';

const MOST = LIMITS.namesInMessage;
const USERS = `n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', '${LEDGER_SCHEMA}')`;

export async function sequences({ source, target }: ReadinessContext): Promise<Verdict> {
  const rows = await source().query<{ schema: string; name: string; reads: boolean }>(
    `SELECT n.nspname AS schema, c.relname AS name,
            has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') AS reads
       FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE c.relpersistence <> 't' AND ${USERS}
        AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
      ORDER BY 1, 2`,
  );
  const hidden = rows.filter(({ reads }) => !reads);
  const [first] = hidden;
  if (first === undefined) {
    const [moved] = await sequencesMovedBehind(source(), target);
    return moved === undefined
      ? ok(`All ${rows.length} can be read, and none was moved behind its rows.`)
      : problem(movedBehind(moved), `${moved.remedy} -- on the source`);
  }
  return problem(
    `Our role may not read ${someOf(
      hidden.map(({ schema, name }) => displayName(schema, name)),
      MOST,
    )}.`,
    `GRANT SELECT ON SEQUENCE ${quoteName(first.schema, first.name)} to our role on the source, and USAGE on its schema.`,
  );
}

interface Constraint {
  schema: string;
  table: string;
  name: string;
}

/** NOT VALID on both servers is as it is to be. */
export async function constraints({ source, target }: ReadinessContext): Promise<Verdict> {
  const read = (session: Session, valid: boolean) =>
    session.query<Constraint>(
      `SELECT n.nspname AS schema, t.relname AS table, c.conname AS name
         FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid JOIN pg_namespace n ON n.oid = t.relnamespace
        WHERE c.convalidated = $1 AND c.contype IN ('c', 'f', 'n') AND ${USERS} ORDER BY 1, 2, 3`,
      [valid],
    );
  const invalid = await read(target(), false);
  const key = ({ schema, table, name }: Constraint) => JSON.stringify([schema, table, name]);
  const validThere = new Set(invalid.length === 0 ? [] : (await read(source(), true)).map(key));
  const found = invalid.filter((constraint) => validThere.has(key(constraint)));
  const [first] = found;
  if (first === undefined) return ok('Valid on the target where they are on the source.');
  return problem(
    `Not validated on the target: ${someOf(
      found.map(({ schema, table, name }) => `${quoteIdent(name)} of ${displayName(schema, table)}`),
      MOST,
    )}.`,
    `ALTER TABLE ${quoteName(first.schema, first.table)} VALIDATE CONSTRAINT ${quoteIdent(first.name)}; -- on the target`,
  );
}

/** pg_dump leaves out indexes that are invalid on the source, so one that is invalid on the target became it there. */
export async function indexes({ target }: ReadinessContext): Promise<Verdict> {
  const found = await target().query<{ schema: string; name: string }>(
    `SELECT n.nspname AS schema, c.relname AS name
       FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE NOT (i.indisvalid AND i.indisready) AND ${USERS} ORDER BY 1, 2`,
  );
  const [first] = found;
  if (first === undefined) return ok('All are valid on the target.');
  return problem(
    `Invalid on the target: ${someOf(
      found.map(({ schema, name }) => displayName(schema, name)),
      MOST,
    )}.`,
    `REINDEX INDEX ${quoteName(first.schema, first.name)}; -- on the target`,
  );
}

export async function materializedViews({ source, target }: ReadinessContext): Promise<Verdict> {
  const wanted = await readPopulated(source());
  const there = await target().query<{ schema: string; name: string; populated: boolean; ours: boolean }>(
    `SELECT n.nspname AS schema, c.relname AS name, c.relispopulated AS populated, pg_has_role(c.relowner, 'USAGE') AS ours
       FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'm'`,
  );
  const missing: string[] = [];
  const empty: string[] = [];
  const foreign: string[] = [];
  let refresh: string | null = null;
  for (const view of wanted) {
    const found = there.find(({ schema, name }) => schema === view.schema && name === view.name);
    if (found === undefined) missing.push(displayView(view));
    else if (!found.populated) {
      empty.push(displayView(view));
      refresh ??= `REFRESH MATERIALIZED VIEW ${quoteName(view.schema, view.name)}; -- on the target`;
    } else if (!found.ours) foreign.push(displayView(view));
  }
  if (missing.length > 0) return problem(`Not on the target: ${someOf(missing, MOST)}.`, 'Create them there.');
  if (empty.length > 0) return problem(`Not populated on the target: ${someOf(empty, MOST)}.`, refresh);
  if (foreign.length > 0)
    return problem(
      `Our role may not refresh ${someOf(foreign, MOST)} on the target.`,
      'GRANT the role that owns them to our role on the target.',
    );
  return ok(`${wanted.length} are populated as on the source, and may be refreshed.`);
}

export async function definitions({ m, source, target }: ReadinessContext): Promise<Verdict> {
  const differences = await describeDifferences(m, source(), target());
  return differences.length === 0
    ? ok('The replicated tables are the same on both servers.')
    : problem(differences.join(' '), 'Make the same change on the target.');
}

export async function unpublishedTables({ m, source, target }: ReadinessContext): Promise<Verdict> {
  const known = await target().query<{ oid: number }>(`SELECT oid::float8 AS oid FROM ${LEDGER_SCHEMA}.relation`);
  const fresh = await newTables(m, source(), known);
  if (fresh.length === 0) return ok('No table came after the start.');
  return problem(
    `Created on the source after the start, and not replicated: ${someOf(
      fresh.map(({ schema, name }) => displayName(schema, name)),
      MOST,
    )}.`,
    'Create them on the target, and bring their rows when writes have stopped.',
  );
}

/** How far the comparison is that goes on while it streams. */
export async function rowsCompared({ target }: ReadinessContext): Promise<Verdict> {
  const seen = await target().one<{
    tables: number;
    equal: number;
    bytes: number;
    waiting: number;
    difference: string | null;
  }>(
    `SELECT count(*)::float8 AS tables, count(*) FILTER (WHERE equal)::float8 AS equal, coalesce(sum(bytes), 0)::float8 AS bytes,
            coalesce(sum(waiting), 0)::float8 AS waiting, min(difference) AS difference
       FROM (SELECT r.oid, bool_and(c.equal IS NOT NULL) AS equal, count(*) FILTER (WHERE c.looked IS NULL AND c.relation IS NOT NULL) AS waiting,
                    sum(c.bytes) FILTER (WHERE c.equal IS NOT NULL) AS bytes, min(c.difference) AS difference
               FROM ${LEDGER_SCHEMA}.relation r LEFT JOIN ${LEDGER_SCHEMA}.comparison c ON c.relation = r.oid
              WHERE r.published GROUP BY r.oid) AS of_table`,
  );
  if (seen.difference !== null) return problem(seen.difference, 'Find out who wrote to the target, and mend its rows.');
  const said = `${seen.equal} of ${seen.tables} tables, ${formatBytes(seen.bytes)}, were seen to be the same on both servers while they stream`;
  return seen.waiting > 0
    ? unknown(`${said}; ${seen.waiting} parts of tables have yet to be looked at.`, 'Wait.')
    : ok(`${said}.${seen.equal < seen.tables ? ' The others change all the time, or are too large for it.' : ''}`);
}

/** Only whether the application's connections fit. Sizes of memory are a matter of the machine. */
export async function connections({ m, source, target }: ReadinessContext): Promise<Verdict> {
  const read = (session: Session) =>
    session.one<{ most: number; used: number }>(
      // Ours will be gone.
      `SELECT current_setting('max_connections')::float8 - current_setting('superuser_reserved_connections')::float8 AS most,
              (SELECT count(*) FROM pg_stat_activity
                WHERE pid <> pg_backend_pid() AND left(application_name, length($1)) <> $1
                  AND coalesce(backend_type, 'client backend') = 'client backend' AND datname IS NOT NULL)::float8 AS used`,
      [applicationPrefix(m.id)],
    );
  const [here, there] = [await read(source()), await read(target())];
  const room = there.most - there.used;
  const said = `The source has ${here.used} sessions now and room for ${here.most}; the target has ${there.used} and room for ${there.most}.`;
  return here.used > room
    ? problem(said, `ALTER SYSTEM SET max_connections = ${here.most + there.used}; -- on the target, then restart it`)
    : ok(said);
}

const applicationPrefix = (id: string): string => `${NAME_PREFIX}${id}_`;

interface Extension {
  name: string;
  version: string;
}

export async function extensions({ m, source, target }: ReadinessContext): Promise<Verdict> {
  const read = (session: Session) =>
    session.query<Extension>(
      `SELECT extname AS name, extversion AS version FROM pg_extension WHERE NOT extname = ANY ($1) ORDER BY 1`,
      [m.plan.extensions.exclude],
    );
  const wanted = await read(source());
  const there = new Map((await read(target())).map(({ name, version }) => [name, version]));
  const lacking = wanted.filter(({ name }) => !there.has(name));
  const older = wanted.filter(({ name, version }) => isOlder(there.get(name) ?? version, version));
  if (lacking.length > 0)
    return problem(
      `Not in the target's database: ${someOf(
        lacking.map(({ name }) => quoteIdent(name)),
        MOST,
      )}.`,
      `CREATE EXTENSION ${quoteIdent(lacking[0]?.name ?? '')}; -- on the target`,
    );
  if (older.length > 0)
    return problem(
      `Older on the target: ${someOf(
        older.map(({ name, version }) => `${quoteIdent(name)} ${there.get(name) ?? ''} (source ${version})`),
        MOST,
      )}.`,
      `ALTER EXTENSION ${quoteIdent(older[0]?.name ?? '')} UPDATE; -- on the target`,
    );
  return ok(`${wanted.length} of ${wanted.length} are there, none older.`);
}

/** By the numbers in them, as far as both have some: versions are words that each extension chooses. */
export function isOlder(version: string, than: string): boolean {
  const [left, right] = [version, than].map((text) => (text.match(/\d+/g) ?? []).map(Number));
  for (let i = 0; i < Math.min(left?.length ?? 0, right?.length ?? 0); i += 1) {
    const difference = (left?.[i] ?? 0) - (right?.[i] ?? 0);
    if (difference !== 0) return difference < 0;
  }
  return false;
}

/** Without them the first queries of the application get plans for empty tables. Views are analyzed when it ends. */
export async function statistics({ target }: ReadinessContext): Promise<Verdict> {
  const rows = await target().query<{ schema: string; name: string; reads: boolean; has: boolean }>(
    `SELECT n.nspname AS schema, c.relname AS name, has_table_privilege(c.oid, 'SELECT') AS reads,
            EXISTS (SELECT FROM pg_stats s WHERE s.schemaname = n.nspname AND s.tablename = c.relname) AS has
       FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE c.relkind = 'r' AND ${USERS} AND pg_relation_size(c.oid) > 0
        AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
        AND NOT EXISTS (SELECT FROM pg_stat_user_tables t
                         WHERE t.relid = c.oid AND coalesce(t.last_analyze, t.last_autoanalyze) IS NOT NULL)
      ORDER BY pg_relation_size(c.oid) DESC`,
  );
  const name = (row: { schema: string; name: string }) => displayName(row.schema, row.name);
  const lacking = rows.filter(({ has, reads }) => !has && reads);
  const [first] = lacking;
  if (first !== undefined)
    return problem(
      `Never analyzed on the target: ${someOf(lacking.map(name), MOST)}.`,
      `ANALYZE ${quoteName(first.schema, first.name)}; -- on the target`,
    );
  const hidden = rows.filter(({ has, reads }) => !has && !reads);
  if (hidden.length > 0)
    return unknown(
      `Our role may not see the statistics of ${someOf(hidden.map(name), MOST)} on the target.`,
      'ANALYZE; -- on the target',
    );
  return ok('Every table with rows has statistics.');
}

const NO_VERIFIER = 'SELECT rolname FROM pg_authid WHERE rolcanlogin AND rolpassword IS NULL; -- by a superuser of';

/** Who has no password on the source logs in without one, and needs none on the target. */
export async function loginRoles({ m, source, target }: ReadinessContext): Promise<Verdict> {
  const { exclude, passwords } = m.plan.roles;
  const wanted = (await readRoles(source())).filter(({ login, name }) => login && !exclude.includes(name));
  const there = new Map((await readRoles(target())).map((role) => [role.name, role]));
  const names = (roles: readonly { name: string }[]) => someOf(roles.map(({ name }) => quoteIdent(name)).sort(), MOST);
  const lacking = wanted.filter(({ name }) => !there.has(name));
  if (lacking.length > 0)
    return problem(
      `Not on the target: ${names(lacking)}.`,
      `CREATE ROLE ${quoteIdent(lacking[0]?.name ?? '')} LOGIN …`,
    );
  const barred = wanted.filter(({ name }) => there.get(name)?.login === false);
  if (barred.length > 0)
    return problem(
      `May not log in on the target: ${names(barred)}.`,
      `ALTER ROLE ${quoteIdent(barred[0]?.name ?? '')} LOGIN; -- on the target`,
    );
  const without = wanted.filter(({ name, verifier }) => {
    const on = there.get(name)?.verifier;
    return on?.known === true && on.value === null && verifier.known && verifier.value !== null;
  });
  if (without.length > 0)
    return problem(
      `Without a password on the target: ${names(without)}.`,
      `\\password ${without[0]?.name ?? ''} -- in psql, on the target`,
    );
  const hidden = wanted.some(({ verifier }) => !verifier.known)
    ? 'source'
    : [...there.values()].some(({ verifier }) => !verifier.known)
      ? 'target'
      : null;
  if (hidden !== null)
    return unknown(
      `All ${wanted.length} are there, but our role may not see on the ${hidden} whether they have passwords.`,
      `${NO_VERIFIER} the ${hidden}`,
    );
  return ok(
    `All ${wanted.length} are there${passwords === 'placeholder' ? '; those that were made have placeholders for passwords' : ', with their passwords'}.`,
  );
}

export async function fencePossible(context: ReadinessContext): Promise<Verdict> {
  const { m, source, sourceForTarget, pgbouncer } = context;
  const { plan, database } = m;
  if (plan.stop.fence === 'none') return ok('The plan has no fence.');
  if (plan.stop.fence === 'external') return ok('Somebody else raises it, and says so with the update fenced.');
  const seen = await fenceRights({ source: source(), plan, database, sourceForTarget, pgbouncer });
  const [first] = seen;
  return first === undefined
    ? ok('Our role may raise it.')
    : problem(seen.map(({ message }) => message).join(' '), first.remedy ?? null);
}
