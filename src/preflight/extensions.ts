import type { Session } from '../postgres/connection.ts';
import { displayName, quoteIdent, quoteName } from '../postgres/identifier.ts';
import { ledgerExists } from '../postgres/ledger.ts';
import { FIRST_NORMAL_OID, ofExtension } from './catalog.ts';
import type { DatabaseContext, Seen } from './check.ts';
import { readOwnRole } from './privileges.ts';

interface Available {
  name: string;
  version: string;
  installed: boolean;
  /** Whether only a superuser may create it. */
  superuser: boolean;
}

const readInstalled = (source: Session, excluded: readonly string[]) =>
  source.query<{ name: string; version: string }>(
    `SELECT extname AS name, extversion AS version FROM pg_extension
      WHERE extname <> 'plpgsql' AND NOT extname = ANY ($1) ORDER BY 1`,
    [excluded],
  );

/** CREATE EXTENSION names no version, so the target takes its default, or keeps what is installed. */
const readAvailable = (target: Session, names: readonly string[], targetExists: boolean) =>
  target.query<Available>(
    `SELECT a.name, coalesce(CASE WHEN $2 THEN a.installed_version END, a.default_version) AS version,
            $2 AND a.installed_version IS NOT NULL AS installed,
            v.superuser AND NOT coalesce((to_jsonb(v) ->> 'trusted')::bool, false) AS superuser
       FROM pg_available_extensions a
       LEFT JOIN pg_available_extension_versions v ON v.name = a.name AND v.version = a.default_version
      WHERE a.name = ANY ($1)`,
    [names, targetExists],
  );

export async function extensions({ source, target, plan, targetExists }: DatabaseContext): Promise<Seen[]> {
  const installed = await readInstalled(source, plan.extensions.exclude);
  // Which extensions are available, a server reads from its disk, file by file.
  if (installed.length === 0) return [];
  const available = await readAvailable(
    target,
    installed.map(({ name }) => name),
    targetExists,
  );
  const allowed = await creatableExtensions(target);
  const seen: Seen[] = [];
  for (const { name, version } of installed) {
    const there = available.find((extension) => extension.name === name);
    const object = quoteIdent(name);
    if (there === undefined)
      seen.push({
        object,
        message: `Extension ${object} is not available on the target.`,
        remedy: `Install its files on the target, or put it into "extensions.exclude" and drop what uses it.`,
      });
    else if (there.superuser && !there.installed && !allowed(name))
      seen.push({
        object,
        message: `Extension ${object} can be created by a superuser only, which the role on the target is not.`,
        remedy: `CREATE EXTENSION ${object}; -- by a superuser, in the database on the target`,
      });
    else if (there.version !== version)
      seen.push(...(await olderVersion(target, object, name, version, there.version)));
  }
  return seen;
}

/** Which version is newer, only the extension's own update scripts know. */
async function olderVersion(target: Session, object: string, name: string, from: string, to: string): Promise<Seen[]> {
  const paths = await target.query<{ source: string; target: string }>(
    `SELECT source, target FROM pg_extension_update_paths($1)
      WHERE path IS NOT NULL AND (source, target) IN (($2, $3), ($3, $2))`,
    [name, from, to],
  );
  if (paths.some((path) => path.source === from)) return [];
  if (paths.length > 0)
    return [
      {
        object,
        message: `Extension ${object} has version ${from} on the source, but the target gives the older ${to}.`,
        remedy: `Install version ${from} or a later one on the target.`,
      },
    ];
  const message = `Extension ${object} has version ${from} on the source and ${to} on the target, which knows no way between them.`;
  return [
    {
      object,
      message,
      severity: 'warning',
      remedy: `Install version ${from} on the target, or see that ${to} will do.`,
    },
  ];
}

/** Lists by which managed servers let an ordinary administrator create extensions. */
const ALLOWED_LISTS = ['extwlist.extensions', 'rds.extensions', 'azure.extensions'];

async function creatableExtensions(target: Session): Promise<(name: string) => boolean> {
  const role = await readOwnRole(target);
  if (role.superuser) return () => true;
  const lists = await target.query<{ list: string | null }>(
    'SELECT current_setting(name, true) AS list FROM unnest($1::text[]) AS name',
    [ALLOWED_LISTS],
  );
  const allowed = new Set(
    lists.flatMap(({ list }) => (list ?? '').split(',').map((name) => name.trim().toLowerCase())),
  );
  const cloud = role.providers.some((name) => ['cloudsqlsuperuser', 'alloydbsuperuser'].includes(name));
  return (name) => cloud || allowed.has(name.toLowerCase());
}

/** Whether our role may make this one extension in a database of its own. */
export async function mayCreateExtension(target: Session, name: string): Promise<boolean> {
  const [found] = await readAvailable(target, [name], false);
  return found !== undefined && (!found.superuser || (await creatableExtensions(target))(name));
}

export async function languages({ source, target }: DatabaseContext): Promise<Seen[]> {
  const used = await source.query<{ name: string }>(
    `SELECT lanname AS name FROM pg_language l
      WHERE l.oid >= ${FIRST_NORMAL_OID} AND NOT ${ofExtension('pg_language', 'l.oid')} ORDER BY 1`,
  );
  if (used.length === 0) return [];
  const there = await target.query<{ name: string }>(
    'SELECT lanname AS name FROM pg_language UNION SELECT name FROM pg_available_extensions',
  );
  return used
    .filter(({ name }) => !there.some((language) => language.name === name))
    .map(({ name }) => ({
      object: quoteIdent(name),
      message: `The procedural language ${quoteIdent(name)} is not available on the target.`,
      remedy: 'Install the language on the target, or drop it on the source.',
    }));
}

/**
 * Rows of configuration tables, where the extension was installed on the target beforehand: those of the source are
 * added to them, so that a key would refuse them, or both sides differ.
 */
export async function configurationRows({ target, targetExists, tables }: DatabaseContext): Promise<Seen[]> {
  // With a ledger they may be those that were copied.
  if (!targetExists || (await ledgerExists(target))) return [];
  const seen: Seen[] = [];
  for (const { schema, name, extensionCondition } of tables) {
    if (extensionCondition === null) continue;
    const table = quoteName(schema, name);
    const { there } = await target.one<{ there: boolean }>('SELECT to_regclass($1) IS NOT NULL AS there', [table]);
    if (!there) continue;
    const rows = await target.query(`SELECT FROM ${table} ${extensionCondition} LIMIT 1`);
    if (rows.length === 0) continue;
    const object = displayName(schema, name);
    seen.push({
      object,
      message: `The extension's configuration table ${object} on the target holds rows already, and those of the source would be added.`,
      remedy: `DELETE FROM ${table} ${extensionCondition}; -- in the database on the target, or set "extensions.tables" to false`,
    });
  }
  return seen;
}
