import { attempt } from './attempt.ts';
import type { Session } from './connection.ts';
import { sqlstateOf } from './sqlstate.ts';

/** UNDEFINED_OBJECT, which is what a missing role is, and a role that we may not act for. */
const FORGIVEN: readonly string[] = ['42704', '42501'];

/** Of settings also values that only older servers take: 22023, and 0A000 as `default_with_oids = on` has it since 12. */
const forgivenOf = (kind: string): readonly string[] =>
  kind === 'DATABASE PROPERTIES' ? [...FORGIVEN, '22023', '0A000'] : FORGIVEN;

/** These hold many statements, each of which may name a role or a setting that this server lacks. */
const LINE_BY_LINE: readonly string[] = ['ACL', 'DEFAULT ACL', 'DATABASE PROPERTIES'];

/** The last statement of an entry, but for the settings that `stage.ts` puts around it. */
const OWNER = /\nALTER [^\n]+ OWNER TO [^\n]+;\n(?=(SET LOCAL [^\n]+\n)*$)/;

/**
 * Runs an entry that failed once more, inside the caller's transaction, and leaves out ownership and grants whose
 * role is missing. Returns a warning for each thing left out, or null where the failure is no such thing: then nothing
 * of it may stay.
 */
export async function applyLeniently(
  target: Session,
  { kind, label, sql }: { kind: string; label: string; sql: string },
  sqlstate: string | null,
): Promise<string[] | null> {
  const forgiven = forgivenOf(kind);
  if (sqlstate === null || !forgiven.includes(sqlstate)) return null;
  if (LINE_BY_LINE.includes(kind)) return eachStatement(target, label, sql, forgiven);
  const rest = sql.replace(OWNER, () => '\n');
  const owner = OWNER.exec(sql)?.[0] ?? '';
  if (owner === '' && !isOptional(kind)) return null;
  const reason = rest.trim() === '' ? null : await refusalOf(target, rest, forgiven);
  if (reason !== null) return isOptional(kind) ? [`${label} was left out: ${reason}`] : null;
  if (owner === '') return [];
  for (const statement of [owner, withSchemaLent(owner)])
    if ((await refusalOf(target, statement, forgiven)) === null) return [];
  return [await reported(target, label, 'keeps another owner', owner, forgiven)].filter((warning) => warning !== null);
}

/**
 * An owner needs CREATE on the schema. Who has it by a grant only gets that at the end, with all others; so it is lent.
 * Where this succeeds there was none before, so none is taken away.
 */
const withSchemaLent = (owner: string): string =>
  owner.replace(
    /^\n(ALTER (?:[A-Z]+ )+("(?:[^"]|"")+"|[^\s."(]+)\..* OWNER TO (.+));\n$/,
    (_, alter: string, schema: string, role: string) =>
      `GRANT CREATE ON SCHEMA ${schema} TO ${role}; ${alter}; REVOKE CREATE ON SCHEMA ${schema} FROM ${role};`,
  );

/**
 * What nothing else needs: a user mapping of a role that does not exist has no use, event triggers and publications of
 * whole schemas are for superusers, and comments for owners: a managed server owns its extensions and databases itself.
 */
const isOptional = (kind: string): boolean =>
  /^(USER MAPPING|EVENT TRIGGER|PUBLICATION|PUBLICATION TABLE|PUBLICATION TABLES IN SCHEMA|COMMENT)$/.test(kind);

/** Where `SET SESSION AUTHORIZATION` is refused, a grant loses its grantor, but it is made. */
async function eachStatement(
  target: Session,
  label: string,
  sql: string,
  forgiven: readonly string[],
): Promise<string[]> {
  const warnings: string[] = [];
  for (const statement of sql.split(/(?<=;)\n/).filter((text) => text.trim() !== '')) {
    const warning = await reported(target, label, 'lost a statement', statement, forgiven);
    if (warning !== null) warnings.push(warning);
  }
  return warnings;
}

async function reported(
  target: Session,
  label: string,
  what: string,
  sql: string,
  forgiven: readonly string[],
): Promise<string | null> {
  const reason = await refusalOf(target, sql, forgiven);
  return reason === null ? null : `${label} ${what}: ${reason} (${sql.trim()})`;
}

/** Null, or why it was refused; other errors than the forgiven ones are thrown. */
const refusalOf = async (target: Session, sql: string, forgiven: readonly string[]): Promise<string | null> =>
  (await attempt(target, sql, (error) => forgiven.includes(sqlstateOf(error) ?? '')))?.message ?? null;
