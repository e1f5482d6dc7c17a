import type { Plan } from '../domain/plan.ts';
import type { Session } from '../postgres/connection.ts';
import { connect } from '../postgres/connection.ts';
import { databaseDifferences, findUserObject, readDatabase } from '../postgres/database.ts';
import { displayName, quoteIdent } from '../postgres/identifier.ts';
import { ledgerExists } from '../postgres/ledger.ts';
import { listTables } from '../postgres/scope.ts';
import { LIMITS } from '../domain/limits.ts';
import type { Named } from './catalog.ts';
import { ofExtension, USER_SCHEMA } from './catalog.ts';
import type { ClusterContext, DatabaseContext, Seen, SourceDatabase } from './check.ts';
import { tooFew } from './source-settings.ts';
import { size } from './units.ts';

const number = async (session: Session, name: string): Promise<number> =>
  Number((await session.one<{ value: string | null }>('SELECT current_setting($1, true) AS value', [name])).value);

/** Each subscription has one apply worker, and needs one origin. */
export async function applyWorkers({ target, databases }: ClusterContext): Promise<Seen[]> {
  const used = await target.one<{ logical: number; all: number; origins: number }>(
    `SELECT (SELECT count(*)::float8 FROM pg_subscription WHERE subenabled) AS logical,
            (SELECT count(*)::float8 FROM pg_stat_activity
              WHERE backend_type !~ '^(client backend|walsender|checkpointer|background writer|walwriter|startup|archiver|walreceiver|walsummarizer|io worker|autovacuum.*|slotsync.*)$') AS all,
            (SELECT count(*)::float8 FROM pg_replication_origin) AS origins`,
  );
  const needed = databases.length;
  const origins = target.version >= 180000 ? 'max_active_replication_origins' : 'max_replication_slots';
  const [logicalMost, workersMost, originsMost] = [
    await number(target, 'max_logical_replication_workers'),
    await number(target, 'max_worker_processes'),
    await number(target, origins),
  ];
  return [
    ...tooFew(
      'logical replication workers',
      'max_logical_replication_workers',
      logicalMost - used.logical,
      needed,
      logicalMost,
    ),
    ...tooFew('worker processes', 'max_worker_processes', workersMost - used.all, needed, workersMost),
    ...tooFew('replication origins', origins, originsMost - used.origins, needed, originsMost),
  ];
}

/** With table filters, what counts is what they let through; then each database is asked. */
export async function sizeLimit({ plan, source, databases }: ClusterContext): Promise<Seen[]> {
  const limit = plan.maxTotalBytes;
  if (limit === null) return [];
  const filtered = plan.tables.include.length > 0 || plan.tables.exclude.length > 0;
  const sizes = filtered ? await sizesInScope(source, plan, databases) : [...databases];
  const total = sizes.reduce((sum, { bytes }) => sum + bytes, 0);
  if (total <= limit) return [];
  const biggest = sizes.sort((a, b) => b.bytes - a.bytes).slice(0, LIMITS.databasesInMessage);
  const list = biggest.map(({ database, bytes }) => `${quoteIdent(database)} ${size(bytes)}`).join(', ');
  const more = sizes.length > biggest.length ? ` and ${sizes.length - biggest.length} smaller ones` : '';
  const message = `The databases have ${size(total)} in all, more than the ${size(limit)} of "maxTotalBytes": ${list}${more}.`;
  return [{ message, remedy: 'Exclude databases or tables, or raise "maxTotalBytes".' }];
}

async function sizesInScope(
  source: Session,
  plan: Plan,
  databases: readonly SourceDatabase[],
): Promise<SourceDatabase[]> {
  const { name } = await source.one<{ name: string }>(`SELECT current_setting('application_name') AS name`);
  const sizes: SourceDatabase[] = [];
  for (const given of databases) {
    const session = await connect(source.endpoint, { database: given.database, applicationName: name });
    try {
      const tables = await listTables(session, plan, given.database);
      sizes.push({ ...given, bytes: tables.reduce((sum, { bytes }) => sum + bytes, 0) });
    } finally {
      await session.close();
    }
  }
  return sizes;
}

export const targetMissing = ({ plan, targetExists, database }: DatabaseContext): Promise<Seen[]> =>
  Promise.resolve(
    targetExists || plan.createDatabases
      ? []
      : [
          {
            object: quoteIdent(database),
            message: 'The database is not there on the target, and the plan forbids to create it.',
            remedy: 'Create it empty on the target, or set "createDatabases" to true.',
          },
        ],
  );

/** The bookkeeping schema makes it another matter, which is told as such. */
export async function targetNotEmpty({ target, targetExists, database }: DatabaseContext): Promise<Seen[]> {
  if (!targetExists || (await ledgerExists(target))) return [];
  const object = await findUserObject(target);
  if (object === null) return [];
  const tables = await target.query<Named>(
    `SELECT n.nspname AS schema, c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND ${USER_SCHEMA} AND NOT ${ofExtension('pg_class', 'c.oid')}
      ORDER BY 1, 2 LIMIT ${LIMITS.namesInMessage}`,
  );
  const names = tables.length > 0 ? tables.map(({ schema, name }) => displayName(schema, name)).join(', ') : object;
  return [
    {
      object: quoteIdent(database),
      message: `The database on the target is not empty. It holds, among others: ${names}.`,
      remedy: `DROP DATABASE ${quoteIdent(database)}; -- on the target, or exclude it with "databases.exclude"`,
    },
  ];
}

/** What it writes would be overwritten by ours, or stop it. */
export async function targetSubscriptions({ target, targetExists, method }: DatabaseContext): Promise<Seen[]> {
  if (!targetExists) return [];
  const rows = await target.query<{ name: string; enabled: boolean }>(
    `SELECT subname AS name, subenabled AS enabled FROM pg_subscription
      WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND subname !~ '^pgtransit_' ORDER BY 1`,
  );
  return rows.map(({ name, enabled }) => ({
    object: quoteIdent(name),
    message: 'A subscription of the database on the target writes to it too.',
    remedy: `DROP SUBSCRIPTION ${quoteIdent(name)}; -- on the target`,
    severity: enabled && method === 'replication' ? 'error' : 'warning',
  }));
}

/** It sees every CREATE of the migration, and may refuse it. Those of extensions are the provider's own. */
export async function targetEventTriggers({ target, targetExists }: DatabaseContext): Promise<Seen[]> {
  if (!targetExists) return [];
  const rows = await target.query<{ name: string; event: string; function: string }>(
    `SELECT evtname AS name, evtevent AS event, evtfoid::regproc::text AS function FROM pg_event_trigger t
      WHERE evtenabled <> 'D' AND NOT ${ofExtension('pg_event_trigger', 't.oid')} ORDER BY 1`,
  );
  return rows.map(({ name, event, function: calls }) => ({
    object: quoteIdent(name),
    message: `The event trigger on the target calls ${calls} at ${event}, so also for what the migration creates, and may refuse that.`,
    remedy: `ALTER EVENT TRIGGER ${quoteIdent(name)} DISABLE; -- in the database on the target, until the migration is done`,
  }));
}

/** A database that is there already keeps its encoding and locale. */
export async function targetDifferences({ source, target, targetExists, database }: DatabaseContext): Promise<Seen[]> {
  if (!targetExists) return [];
  const [from, to] = [await readDatabase(source), await readDatabase(target)];
  const seen: Seen[] = [];
  // Everything can be written in UTF8; SQL_ASCII takes any byte.
  if (from.encoding !== to.encoding && !['UTF8', 'SQL_ASCII'].includes(to.encoding))
    seen.push({
      object: quoteIdent(database),
      message: `The database has encoding ${to.encoding} on the target and ${from.encoding} on the source; not every text can be written in it.`,
      remedy: `DROP DATABASE ${quoteIdent(database)}; -- on the target, so that it is made like the one on the source`,
      severity: 'error',
    });
  const differences = databaseDifferences(from, to);
  if (differences.length > 0)
    seen.push({
      object: quoteIdent(database),
      message: `The database on the target has ${differences.join(', ')}.`,
      remedy: `DROP DATABASE ${quoteIdent(database)}; -- on the target, so that it is made like the one on the source`,
    });
  return seen;
}

export async function missingTablespaces({ source, target }: DatabaseContext): Promise<Seen[]> {
  const used = await source.query<{ name: string }>(
    `SELECT DISTINCT s.spcname AS name FROM pg_tablespace s
      WHERE s.oid IN (SELECT reltablespace FROM pg_class) AND s.spcname NOT IN ('pg_default', 'pg_global')
         OR s.oid = (SELECT dattablespace FROM pg_database WHERE datname = current_database()) AND s.spcname <> 'pg_default'
      ORDER BY 1`,
  );
  if (used.length === 0) return [];
  const there = await target.query<{ name: string }>('SELECT spcname AS name FROM pg_tablespace');
  return used
    .filter(({ name }) => !there.some((tablespace) => tablespace.name === name))
    .map(({ name }) => ({
      object: quoteIdent(name),
      message: 'The target has no such tablespace; what lies in it goes to the default one.',
      remedy: `CREATE TABLESPACE ${quoteIdent(name)} LOCATION '…'; -- on the target`,
    }));
}
