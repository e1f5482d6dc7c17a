import type { Session } from '../postgres/connection.ts';
import { displayName, quoteIdent, quoteLiteral, quoteName } from '../postgres/identifier.ts';
import { readInvalidIndexes, readSubscriptions } from '../postgres/schema-catalog.ts';
import { isPublished } from '../postgres/scope.ts';
import type { Named } from './catalog.ts';
import { FIRST_NORMAL_OID, ofExtension, USER_SCHEMA } from './catalog.ts';
import type { DatabaseContext, Seen } from './check.ts';

export async function unloggedTables({ source, target, tables, method }: DatabaseContext): Promise<Seen[]> {
  const carried = method !== 'replication' || (await maySwitchOffTriggers(target));
  const { standby } = await source.one<{ standby: boolean }>('SELECT pg_is_in_recovery() AS standby');
  const unlogged = tables.filter(({ persistence }) => persistence === 'u');
  return unlogged.map(({ schema, name }) => {
    const object = displayName(schema, name);
    if (standby)
      return {
        object,
        message: 'The table is unlogged, and the source is a standby, which has no rows of it.',
        remedy: `Use the address of the primary, or exclude the table.`,
        severity: 'error',
      };
    const later = method === 'replication' ? ', and once more at the cutover' : '';
    return carried
      ? { object, message: `The table is unlogged; its rows are copied${later}.`, severity: 'info' }
      : {
          object,
          message:
            'The table is unlogged: its rows are copied, but later changes to them do not follow, because our role on the target may not switch off triggers.',
        };
  });
}

/** Rows that are copied once more meet the triggers and foreign keys of the target. */
async function maySwitchOffTriggers(target: Session): Promise<boolean> {
  const granted = target.version >= 150000 ? `has_parameter_privilege('session_replication_role', 'SET')` : 'false';
  return (await target.one<{ may: boolean }>(`SELECT current_setting('is_superuser')::bool OR ${granted} AS may`)).may;
}

/** They go with the sessions that made them, so nobody expects them; but a person may have forgotten. */
export async function temporaryTables({ source }: DatabaseContext): Promise<Seen[]> {
  const { count } = await source.one<{ count: number }>(
    `SELECT count(*)::float8 AS count FROM pg_class WHERE relpersistence = 't' AND relkind IN ('r', 'p')`,
  );
  return count === 0 ? [] : [{ message: `${count} temporary tables of sessions are not carried over.` }];
}

/** Tools that fold names, and file systems that do, take the two for one. */
export async function namesByCase({ source }: DatabaseContext): Promise<Seen[]> {
  const rows = await source.query<{ schema: string; names: string[] }>(
    `SELECT n.nspname AS schema, array_agg(c.relname::text ORDER BY c.relname) AS names
       FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND ${USER_SCHEMA} GROUP BY n.nspname, lower(c.relname) HAVING count(*) > 1
      ORDER BY 1, 2`,
  );
  return rows.map(({ schema, names }) => ({
    object: displayName(schema, names[0] ?? ''),
    message: `These names differ only by case: ${names.map((name) => displayName(schema, name)).join(', ')}. Each is brought over; in filters, quote them.`,
  }));
}

export async function foreignTables({ source }: DatabaseContext): Promise<Seen[]> {
  const rows = await source.query<Named>(
    `SELECT n.nspname AS schema, c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE c.relkind = 'f' AND ${USER_SCHEMA} AND NOT ${ofExtension('pg_class', 'c.oid')} ORDER BY 1, 2`,
  );
  return rows.map(({ schema, name }) => ({
    object: displayName(schema, name),
    message: 'The foreign table is created on the target; its rows stay where they are.',
  }));
}

/** An apply worker runs with session_replication_role = replica, where ordinary triggers and rules do not fire. */
export async function firingTriggers({ source, tables }: DatabaseContext): Promise<Seen[]> {
  const rows = await source.query<Named & { what: string; state: string }>(
    `SELECT n.nspname AS schema, c.relname AS name, 'Trigger ' || quote_ident(t.tgname) AS what, t.tgenabled AS state
       FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE c.oid = ANY ($1::oid[]) AND t.tgenabled IN ('A', 'R') AND NOT t.tgisinternal
     UNION ALL
     SELECT n.nspname, c.relname, 'Rule ' || quote_ident(r.rulename), r.ev_enabled
       FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE c.oid = ANY ($1::oid[]) AND r.ev_enabled IN ('A', 'R') AND r.ev_type <> '1'
      ORDER BY 1, 2, 3`,
    [tables.filter(isPublished).map(({ oid }) => oid)],
  );
  return rows.map(({ schema, name, what, state }) => ({
    object: displayName(schema, name),
    message: `${what} is ENABLE ${state === 'A' ? 'ALWAYS' : 'REPLICA'}, so it also fires on the target, for each change that is applied there.`,
    remedy: `See that firing twice does no harm, or ALTER TABLE ${quoteName(schema, name)} ENABLE TRIGGER …;`,
  }));
}

export async function eventTriggers({ source }: DatabaseContext): Promise<Seen[]> {
  const rows = await source.query<{ name: string }>(
    `SELECT evtname AS name FROM pg_event_trigger t WHERE NOT ${ofExtension('pg_event_trigger', 't.oid')} ORDER BY 1`,
  );
  return rows.map(({ name }) => ({
    object: quoteIdent(name),
    message: 'The event trigger is restored last, so it sees nothing of the migration.',
  }));
}

/** Extensions whose catalogs hold what their tables are; a copy of the tables alone is broken. */
const UNSUPPORTED_EXTENSIONS = ['timescaledb', 'citus', 'citus_columnar', 'pglogical', 'spock'];

export async function unsupportedExtensions({ source, database }: DatabaseContext): Promise<Seen[]> {
  const rows = await source.query<{ name: string }>(
    'SELECT extname AS name FROM pg_extension WHERE extname = ANY ($1)',
    [UNSUPPORTED_EXTENSIONS],
  );
  return rows.map(({ name }) => ({
    object: quoteIdent(name),
    message: `Extension ${quoteIdent(name)} keeps in catalogs of its own what its tables are, and that cannot be migrated.`,
    remedy: `Exclude database ${quoteIdent(database)}, and use the extension's own way.`,
  }));
}

export async function catalogObjects({ source }: DatabaseContext): Promise<Seen[]> {
  const rows = await source.query<{ what: string; name: string }>(
    `SELECT 'relation' AS what, c.relname AS name FROM pg_class c
      WHERE c.relnamespace = 'pg_catalog'::regnamespace AND c.oid >= ${FIRST_NORMAL_OID} AND NOT ${ofExtension('pg_class', 'c.oid')}
     UNION ALL
     SELECT 'function', p.proname FROM pg_proc p
      WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.oid >= ${FIRST_NORMAL_OID} AND NOT ${ofExtension('pg_proc', 'p.oid')}
      ORDER BY 1, 2`,
  );
  return rows.map(({ what, name }) => ({
    object: displayName('pg_catalog', name),
    message: `The ${what} is in schema pg_catalog, which no dump carries.`,
    remedy: 'Move it to a schema of your own, or create it on the target yourself.',
  }));
}

/** Two subscribers would share one slot, so none is carried. */
export async function subscriptions({ source }: DatabaseContext): Promise<Seen[]> {
  return (await readSubscriptions(source)).map((name) => ({
    object: name,
    message: 'The database subscribes to another server; the subscription is not carried over.',
    remedy: 'Create it on the target after the cutover, with a slot of its own.',
  }));
}

export async function allTablesPublications({ source }: DatabaseContext): Promise<Seen[]> {
  const rows = await source.query<{ name: string }>(
    'SELECT pubname AS name FROM pg_publication WHERE puballtables ORDER BY 1',
  );
  return rows.map(({ name }) => ({
    object: quoteIdent(name),
    message:
      'The publication is of all tables. It is carried over, but its subscribers have their slots on the source.',
    remedy: 'After the cutover, let each subscriber subscribe to the target instead.',
  }));
}

export async function invalidIndexes({ source }: DatabaseContext): Promise<Seen[]> {
  return (await readInvalidIndexes(source)).map((index) => ({
    object: index,
    message: 'The index is invalid, as a failed CREATE INDEX CONCURRENTLY leaves it, and is not carried over.',
    remedy: `DROP INDEX ${index}; -- or REINDEX INDEX with its name`,
  }));
}

export async function securityLabels({ source }: DatabaseContext): Promise<Seen[]> {
  const rows = await source.query<{ provider: string; labels: number }>(
    'SELECT provider, count(*)::float8 AS labels FROM pg_seclabel GROUP BY 1 ORDER BY 1',
  );
  return rows.map(({ provider, labels }) => ({
    object: quoteLiteral(provider),
    message: `${labels} security labels need the provider ${quoteLiteral(provider)} to be loaded on the target.`,
    remedy: 'Load the provider on the target with "shared_preload_libraries".',
  }));
}

/** Functions in C outside of extensions name a library file that the target may not have. */
export async function libraryFunctions({ source }: DatabaseContext): Promise<Seen[]> {
  const rows = await source.query<Named & { library: string }>(
    `SELECT n.nspname AS schema, p.proname AS name, p.probin AS library
       FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang AND l.lanname = 'c'
      WHERE p.oid >= ${FIRST_NORMAL_OID} AND ${USER_SCHEMA} AND NOT ${ofExtension('pg_proc', 'p.oid')} ORDER BY 1, 2`,
  );
  return rows.map(({ schema, name, library }) => ({
    object: displayName(schema, name),
    message: `The function is in the library ${library}, which must be there on the target too.`,
    remedy: 'Install the library on the target.',
  }));
}
