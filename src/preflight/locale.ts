import type { Session } from '../postgres/connection.ts';
import { readDatabase } from '../postgres/database.ts';
import { displayName, quoteIdent, quoteLiteral } from '../postgres/identifier.ts';
import { sqlstateOf } from '../postgres/sqlstate.ts';
import type { Named } from './catalog.ts';
import { FIRST_NORMAL_OID, ofExtension, USER_SCHEMA } from './catalog.ts';
import type { DatabaseContext, Seen } from './check.ts';

interface Locale {
  provider: 'libc' | 'icu' | 'builtin';
  collate: string;
  ctype: string;
  /** Of the provider; null with libc. */
  locale: string | null;
  deterministic: boolean;
}

/**
 * Whether the target's operating system and its ICU have a locale, nothing but the target can tell: it is asked to make
 * a temporary collation, which is rolled back.
 */
export async function locales({ source, target, targetExists, database }: DatabaseContext): Promise<Seen[]> {
  const seen: Seen[] = [];
  if (!targetExists) {
    const facts = await readDatabase(source);
    const locale = { ...facts, deterministic: true };
    // A database has a libc locale beside the one of its provider.
    for (const wanted of facts.provider === 'libc' ? [locale] : [{ ...locale, provider: 'libc' as const }, locale]) {
      const reason = await refusal(target, wanted);
      if (reason !== null)
        seen.push(missing(quoteIdent(database), wanted, reason, 'create the database there yourself'));
    }
  }
  const tried = new Map<string, string | null>();
  for (const { schema, name, ...locale } of await readCollations(source)) {
    const key = JSON.stringify(locale);
    if (!tried.has(key)) tried.set(key, await refusal(target, locale));
    const reason = tried.get(key) ?? null;
    if (reason !== null) seen.push(missing(displayName(schema, name), locale, reason, 'drop the collation'));
  }
  return seen;
}

const nameOf = ({ provider, collate, ctype, locale }: Locale): string =>
  provider === 'libc' ? (collate === ctype ? collate : `${collate} with LC_CTYPE ${ctype}`) : (locale ?? '');

const missing = (object: string, locale: Locale, reason: string, otherwise: string): Seen => ({
  object,
  message: `The target cannot make the ${locale.provider} locale ${nameOf(locale)}: ${reason}.`,
  remedy: `Install the locale ${nameOf(locale)} on the target, or ${otherwise}.`,
});

const readCollations = (source: Session) =>
  source.query<Named & Locale>(
    // Columns came with 12 (deterministic), 15 (ICU locale) and 17 (one locale column); before 15, ICU's is in collcollate.
    `SELECT n.nspname AS schema, c.collname AS name,
            CASE c.collprovider WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' ELSE 'libc' END AS provider,
            coalesce(c.collcollate, '') AS collate, coalesce(c.collctype, '') AS ctype,
            CASE WHEN c.collprovider <> 'c' THEN coalesce(j.row ->> 'colllocale', j.row ->> 'colliculocale', c.collcollate) END AS locale,
            coalesce((j.row ->> 'collisdeterministic')::bool, true) AS deterministic
       FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace, to_jsonb(c) AS j (row)
      WHERE c.oid >= ${FIRST_NORMAL_OID} AND ${USER_SCHEMA} AND NOT ${ofExtension('pg_collation', 'c.oid')}
      ORDER BY 1, 2`,
  );

/** INVALID_OBJECT_DEFINITION: for libc, the locale is there, but is not for the encoding of the session's database. */
const OTHER_ENCODING = '42P17';
/** What a locale that is not there raises: INVALID_PARAMETER_VALUE, UNDEFINED_OBJECT, FEATURE_NOT_SUPPORTED (no ICU). */
const NOT_THERE = ['22023', '42704', '0A000', OTHER_ENCODING];

async function refusal(target: Session, locale: Locale): Promise<string | null> {
  const name = quoteLiteral(locale.locale ?? '');
  const options =
    locale.provider === 'libc'
      ? `provider = libc, lc_collate = ${quoteLiteral(locale.collate)}, lc_ctype = ${quoteLiteral(locale.ctype)}`
      : `provider = ${locale.provider}, locale = ${name}`;
  const deterministic = locale.deterministic ? '' : ', deterministic = false';
  await target.query('BEGIN READ WRITE');
  try {
    await target.query(`CREATE COLLATION pg_temp.pgtransit (${options}${deterministic})`);
    return null;
  } catch (error) {
    const state = sqlstateOf(error) ?? '';
    if (!NOT_THERE.includes(state) || !(error instanceof Error)) throw error;
    return state === OTHER_ENCODING && locale.provider === 'libc' ? null : error.message;
  } finally {
    await target.query('ROLLBACK');
  }
}

interface CollationVersion {
  provider: string;
  locale: string;
  version: string;
}

/** Versions came with 15 for databases, and with other names of the locale; a C locale has none. */
const VERSIONS = `
  SELECT coalesce(j.row ->> 'datlocprovider', 'c') AS provider, j.row ->> 'datcollversion' AS version,
         coalesce(j.row ->> 'datlocale', j.row ->> 'daticulocale', d.datcollate) AS locale, d.datname AS database, NULL::oid AS oid
    FROM pg_database d, to_jsonb(d) AS j (row)
   UNION ALL
  SELECT c.collprovider::text, coalesce(pg_collation_actual_version(c.oid), j.row ->> 'collversion'),
         coalesce(j.row ->> 'colllocale', j.row ->> 'colliculocale', c.collcollate), NULL, c.oid
    FROM pg_collation c, to_jsonb(c) AS j (row) WHERE c.collprovider IN ('c', 'i', 'b')`;

/**
 * Another version of the C library or of ICU sorts otherwise. Indexes are built anew on the target, but the bounds of
 * partitions stay, and a row may be on the wrong side of one there.
 */
export async function collationVersions({
  source,
  target,
  targetExists,
  database,
  tables,
}: DatabaseContext): Promise<Seen[]> {
  const used = await source.query<CollationVersion>(
    `SELECT DISTINCT provider, locale, version FROM (${VERSIONS}) AS v
      WHERE version IS NOT NULL AND locale IS NOT NULL
        AND (database = current_database() OR oid IN (SELECT attcollation FROM pg_attribute WHERE attrelid = ANY ($1::oid[])))
      ORDER BY 1, 2`,
    [tables.map(({ oid }) => oid)],
  );
  if (used.length === 0) return [];
  const there = await target.query<CollationVersion>(
    `SELECT DISTINCT provider, locale, version FROM (${VERSIONS}) AS v
      WHERE version IS NOT NULL AND (database IS NULL OR database = $3) AND (provider, locale) IN (SELECT * FROM unnest($1::text[], $2::text[])) ORDER BY 3`,
    [
      used.map(({ provider }) => provider),
      used.map(({ locale }) => locale),
      // A new one is made like the template.
      targetExists ? database : 'template0',
    ],
  );
  const { partitioned } = await source.one<{ partitioned: boolean }>(
    `SELECT EXISTS (SELECT FROM pg_partitioned_table p, unnest(p.partcollation::oid[]) AS c (oid)
                     WHERE p.partstrat = 'r' AND c.oid <> 0
                       AND c.oid NOT IN (SELECT oid FROM pg_collation WHERE collname IN ('C', 'POSIX'))) AS partitioned`,
  );
  return used.flatMap(({ provider, locale, version }): Seen[] => {
    const others = there.filter((other) => other.provider === provider && other.locale === locale);
    if (others.length === 0 || others.some((other) => other.version === version)) return [];
    const versions = others.map((other) => other.version).join(', ');
    const message = `Text in locale ${locale} is sorted by version ${version} on the source and by ${versions} on the target; ORDER BY may give another order`;
    return partitioned
      ? [
          {
            object: quoteIdent(locale),
            message: `${message}, and rows of tables partitioned by a range of text may not fit their partition.`,
            remedy: 'Compare the order of such keys on both servers, or use a target with the same version.',
          },
        ]
      : [{ object: quoteIdent(locale), message: `${message}.`, severity: 'info' }];
  });
}
