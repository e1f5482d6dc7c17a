import type { RoleReport } from '../domain/progress.ts';
import { attempt } from './attempt.ts';
import type { Session } from './connection.ts';
import { quoteIdent } from './identifier.ts';
import { settingSql } from './role.ts';

/** What the source has for all roles in all databases (ALTER ROLE ALL SET), and which databases it has. */
export interface AllRolesSettings {
  /** `name=value`, as the catalog keeps them. */
  settings: readonly string[];
  databases: readonly string[];
}

export const readAllRolesSettings = (source: Session): Promise<AllRolesSettings> =>
  source.one<AllRolesSettings>(
    `SELECT ARRAY(SELECT setting FROM pg_db_role_setting, unnest(setconfig) AS setting
                   WHERE setrole = 0 AND setdatabase = 0 ORDER BY 1) AS settings,
            ARRAY(SELECT datname::text FROM pg_database WHERE NOT datistemplate) AS databases`,
  );

export interface AllRolesSetting {
  name: string;
  /** On the target. */
  sql: string;
  /** Why it is left to a person, as the rest of a sentence; null: the migration sets it. */
  obstacle: string | null;
}

/** A library or role that the target lacks would end each session at its start, that of a superuser too. */
const LOCKS_OUT = /^(session_preload_libraries|local_preload_libraries|role)$/i;

/** What the target lacks of them. One that was set already, by an earlier attempt or by anybody, is not among them. */
export async function planAllRolesSettings(target: Session, found: AllRolesSettings): Promise<AllRolesSetting[]> {
  if (found.settings.length === 0) return [];
  const { superuser, settings, others } = await target.one<{
    superuser: boolean;
    settings: string[];
    others: string[];
  }>(
    `SELECT current_setting('is_superuser')::bool AS superuser,
            ARRAY(SELECT unnest(setconfig) FROM pg_db_role_setting WHERE setrole = 0 AND setdatabase = 0) AS settings,
            ARRAY(SELECT datname::text FROM pg_database
                   WHERE NOT datistemplate AND datname NOT IN ('postgres', current_database()) AND datname <> ALL ($1)
                   ORDER BY 1) AS others`,
    [found.databases],
  );
  const nameOf = (setting: string) => setting.split('=')[0] ?? '';
  const [other] = others;
  return found.settings
    .filter((setting) => !settings.includes(setting))
    .map((setting) => {
      const name = nameOf(setting);
      const obstacle = settings.some((own) => nameOf(own) === name)
        ? 'the target has a value of its own'
        : LOCKS_OUT.test(name)
          ? 'it could keep everybody out of the target'
          : other !== undefined
            ? `it would hold for database ${quoteIdent(other)} of the target too, which the source does not have`
            : superuser
              ? null
              : 'only a superuser of the target may set it';
      return { name, sql: settingSql('ROLE ALL', setting), obstacle };
    });
}

/** A line of the report for all of them; null when there is nothing to say. */
export async function restoreAllRolesSettings(target: Session, found: AllRolesSettings): Promise<RoleReport | null> {
  const planned = await planAllRolesSettings(target, found);
  if (planned.length === 0) return null;
  const set: string[] = [];
  const notes: string[] = [];
  for (const { name, sql, obstacle } of planned) {
    const refusal = obstacle ?? (await attempt(target, sql))?.message;
    if (refusal === undefined) set.push(name);
    else notes.push(`${name} is not set: ${refusal}.`);
  }
  if (set.length > 0) notes.unshift(`For all roles, ${set.join(', ')} is as on the source.`);
  return { role: 'ALL', status: set.length > 0 ? 'created' : 'exists', placeholder: false, message: notes.join(' ') };
}
