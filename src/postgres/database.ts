import type { Session } from './connection.ts';
import { quoteIdent, quoteLiteral } from './identifier.ts';
import { sqlstateOf } from './sqlstate.ts';

export interface DatabaseFacts {
  owner: string;
  encoding: string;
  tablespace: string;
  collate: string;
  ctype: string;
  provider: 'libc' | 'icu' | 'builtin';
  /** Of the provider; null with libc. */
  locale: string | null;
  icuRules: string | null;
}

/** The database that the session is connected to. */
export const readDatabase = (session: Session): Promise<DatabaseFacts> =>
  session.one<DatabaseFacts>(
    // Columns came with 15 (provider, ICU locale), 16 (rules) and 17 (one locale column for all providers).
    `SELECT pg_get_userbyid(d.datdba) AS owner, pg_encoding_to_char(d.encoding) AS encoding, s.spcname AS tablespace,
            d.datcollate AS collate, d.datctype AS ctype,
            CASE j.row ->> 'datlocprovider' WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' ELSE 'libc' END AS provider,
            coalesce(j.row ->> 'datlocale', j.row ->> 'daticulocale') AS locale, j.row ->> 'daticurules' AS "icuRules"
       FROM pg_database d JOIN pg_tablespace s ON s.oid = d.dattablespace, to_jsonb(d) AS j (row)
      WHERE d.datname = current_database()`,
  );

export const databaseExists = async (session: Session, database: string): Promise<boolean> =>
  (
    await session.one<{ found: boolean }>('SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1) AS found', [
      database,
    ])
  ).found;

const DUPLICATE_DATABASE = '42P04';
const DUPLICATE_ROW = '23505';

/**
 * Makes an empty database like `facts`; a tablespace that this server does not have, or that is not for our role, is left
 * out. False: somebody else made it at the same moment.
 */
export async function createDatabase(session: Session, database: string, facts: DatabaseFacts): Promise<boolean> {
  // Who names even the default one must have been given it.
  const tablespaces = await session.query(
    `SELECT FROM pg_tablespace WHERE spcname = $1 AND has_tablespace_privilege(oid, 'CREATE')`,
    [facts.tablespace],
  );
  const options = localeOptions(facts, session.version);
  if (tablespaces.length > 0) options.push(`TABLESPACE = ${quoteIdent(facts.tablespace)}`);
  try {
    // Template 0 can be copied while somebody is connected to template 1, and has no objects that nobody asked for.
    await session.query(`CREATE DATABASE ${quoteIdent(database)} TEMPLATE = template0 ${options.join(' ')}`);
    return true;
  } catch (error) {
    if ([DUPLICATE_DATABASE, DUPLICATE_ROW].includes(sqlstateOf(error) ?? '')) return false;
    throw error;
  }
}

function localeOptions(
  { encoding, collate, ctype, provider, locale, icuRules }: DatabaseFacts,
  version: number,
): string[] {
  const options = [
    `ENCODING = ${quoteLiteral(encoding)}`,
    `LC_COLLATE = ${quoteLiteral(collate)}`,
    `LC_CTYPE = ${quoteLiteral(ctype)}`,
  ];
  if (version >= 150000) options.push(`LOCALE_PROVIDER = ${provider}`);
  if (provider === 'icu' && locale !== null) options.push(`ICU_LOCALE = ${quoteLiteral(locale)}`);
  if (provider === 'icu' && icuRules !== null) options.push(`ICU_RULES = ${quoteLiteral(icuRules)}`);
  if (provider === 'builtin' && locale !== null) options.push(`BUILTIN_LOCALE = ${quoteLiteral(locale)}`);
  return options;
}

/** Gives the database its owner. Returns a warning when the role is missing or may not be used by us. */
export async function setDatabaseOwner(session: Session, database: string, owner: string): Promise<string | null> {
  try {
    await session.query(`ALTER DATABASE ${quoteIdent(database)} OWNER TO ${quoteIdent(owner)}`);
    return null;
  } catch (error) {
    if (!['42704', '42501'].includes(sqlstateOf(error) ?? '')) throw error;
    const reason = error instanceof Error ? error.message : '';
    return `The database keeps its owner on the target instead of ${quoteIdent(owner)}: ${reason}.`;
  }
}

/** How a database differs from the one on the source in what is decided when it is made. */
export function databaseDifferences(source: DatabaseFacts, target: DatabaseFacts): string[] {
  const names = {
    tablespace: 'tablespace',
    encoding: 'encoding',
    collate: 'LC_COLLATE',
    ctype: 'LC_CTYPE',
    provider: 'locale provider',
    locale: 'locale',
  };
  return (Object.keys(names) as (keyof typeof names)[])
    .filter((key) => source[key] !== target[key])
    .map((key) => `${names[key]} ${target[key] ?? 'none'} instead of ${source[key] ?? 'none'}`);
}

/** OIDs below are given by initdb, and so are in every new database. */
const FIRST_NORMAL_OID = 16384;

/**
 * Something that a person put into the connected database, or null when it is as good as new. What belongs to an
 * extension does not count: a provider may have installed some, and CREATE EXTENSION IF NOT EXISTS takes them as they are.
 */
export async function findUserObject(session: Session): Promise<string | null> {
  const made = `c.oid >= ${FIRST_NORMAL_OID}`;
  // A large object's oid is whatever its maker wished.
  const catalogs = [
    [
      'pg_class',
      'relname',
      `${made} AND relkind <> 't' AND relnamespace NOT IN (SELECT oid FROM pg_namespace WHERE nspname ~ '^pg_')`,
    ],
    ['pg_proc', 'proname', made],
    ['pg_type', 'typname', `${made} AND typnamespace NOT IN (SELECT oid FROM pg_namespace WHERE nspname ~ '^pg_')`],
    // An extension whose control file names its schema makes that, but the schema is no part of it.
    [
      'pg_namespace',
      'nspname',
      `${made} AND nspname <> 'public' AND nspname !~ '^pg_' AND c.oid NOT IN (SELECT extnamespace FROM pg_extension)`,
    ],
    ['pg_publication', 'pubname', made],
    ['pg_event_trigger', 'evtname', made],
    ['pg_foreign_data_wrapper', 'fdwname', made],
    ['pg_largeobject_metadata', 'oid::text', 'true'],
  ];
  const parts = catalogs.map(
    ([catalog, name, condition]) =>
      `(SELECT '${catalog}' AS catalog, ${name}::text AS name FROM ${catalog} c
         WHERE ${condition}
           AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = '${catalog}'::regclass AND d.objid = c.oid AND d.deptype IN ('e', 'i'))
         LIMIT 1)`,
  );
  const [found] = await session.query<{ catalog: string; name: string }>(`${parts.join(' UNION ALL ')} LIMIT 1`);
  return found === undefined ? null : `${KINDS[found.catalog] ?? found.catalog} ${quoteIdent(found.name)}`;
}

const KINDS: Readonly<Record<string, string>> = {
  pg_class: 'relation',
  pg_proc: 'function',
  pg_type: 'type',
  pg_namespace: 'schema',
  pg_publication: 'publication',
  pg_event_trigger: 'event trigger',
  pg_foreign_data_wrapper: 'foreign data wrapper',
  pg_largeobject_metadata: 'large object',
};
