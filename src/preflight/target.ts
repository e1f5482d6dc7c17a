import type { Session } from '../postgres/connection.ts';
import { databaseDifferences, findUserObject, readDatabase } from '../postgres/database.ts';
import { displayName, quoteIdent } from '../postgres/identifier.ts';
import { ledgerExists } from '../postgres/ledger.ts';
import { LIMITS } from '../domain/limits.ts';
import type { Named } from './catalog.ts';
import { ofExtension, USER_SCHEMA } from './catalog.ts';
import type { ClusterContext, DatabaseContext, Seen } from './check.ts';
import { size, tooFew } from './source-settings.ts';

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

export const sizeLimit = ({ plan, databases }: ClusterContext): Promise<Seen[]> => {
  const limit = plan.maxTotalBytes;
  const total = databases.reduce((sum, { bytes }) => sum + bytes, 0);
  if (limit === null || total <= limit) return Promise.resolve([]);
  const biggest = [...databases].sort((a, b) => b.bytes - a.bytes).slice(0, LIMITS.namesInMessage);
  const sizes = biggest.map(({ database, bytes }) => `${quoteIdent(database)} ${size(bytes)}`).join(', ');
  const message = `The databases have ${size(total)} in all, more than the ${size(limit)} of "maxTotalBytes": ${sizes}${databases.length > biggest.length ? ', …' : ''}.`;
  return Promise.resolve([{ message, remedy: 'Exclude databases, or raise "maxTotalBytes".' }]);
};

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
      remedy: `DROP DATABASE ${quoteIdent(database)}; on the target, or exclude it with "databases.exclude"`,
    },
  ];
}

export async function targetSubscriptions({ target, targetExists }: DatabaseContext): Promise<Seen[]> {
  if (!targetExists) return [];
  const rows = await target.query<{ name: string }>(
    `SELECT subname AS name FROM pg_subscription
      WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND subname !~ '^pgtransit_' ORDER BY 1`,
  );
  return rows.map(({ name }) => ({
    object: quoteIdent(name),
    message: 'A subscription of the database on the target writes to it too.',
    remedy: `DROP SUBSCRIPTION ${quoteIdent(name)}; on the target`,
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
      remedy: `DROP DATABASE ${quoteIdent(database)}; on the target, so that it is made like the one on the source`,
      severity: 'error',
    });
  const differences = databaseDifferences(from, to);
  if (differences.length > 0)
    seen.push({
      object: quoteIdent(database),
      message: `The database on the target has ${differences.join(', ')}.`,
      remedy: `DROP DATABASE ${quoteIdent(database)}; on the target, so that it is made like the one on the source`,
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
  const there = await target.query<{ name: string }>('SELECT spcname AS name FROM pg_tablespace');
  return used
    .filter(({ name }) => !there.some((tablespace) => tablespace.name === name))
    .map(({ name }) => ({
      object: quoteIdent(name),
      message: 'The target has no such tablespace; what lies in it goes to the default one.',
      remedy: `CREATE TABLESPACE ${quoteIdent(name)} LOCATION '…'; on the target`,
    }));
}
