import { randomBytes } from 'node:crypto';
import type { Session } from './connection.ts';
import { quoteIdent, quoteLiteral } from './identifier.ts';
import { scramVerifier } from './scram.ts';

/** What a role can do besides being a member: those that a server may refuse to give, one by one. */
const ATTRIBUTES = ['SUPERUSER', 'CREATEDB', 'CREATEROLE', 'REPLICATION', 'BYPASSRLS'] as const;

export interface Role {
  name: string;
  login: boolean;
  inherit: boolean;
  attributes: (typeof ATTRIBUTES)[number][];
  /** -1: none. */
  connectionLimit: number;
  validUntil: string | null;
  /** `name=value`, as the catalog keeps them. */
  settings: string[];
  comment: string | null;
  /** The stored verifier. Unknown: we may not read it. It goes into CREATE ROLE and nowhere else. */
  verifier: { known: true; value: string | null } | { known: false };
}

export interface Membership {
  role: string;
  member: string;
  /** Null: the bootstrap superuser, whose name may differ between servers. */
  grantor: string | null;
  admin: boolean;
  /** Null before 16, where they came from the member. */
  inherit: boolean | null;
  set: boolean | null;
}

interface RoleRow {
  name: string;
  login: boolean;
  inherit: boolean;
  super: boolean;
  createdb: boolean;
  createrole: boolean;
  replication: boolean;
  bypassrls: boolean;
  connectionLimit: number;
  validUntil: string | null;
  settings: string[];
  comment: string | null;
  verifier: string | null;
}

/** All roles but the predefined ones, whose names start with pg_. */
export async function readRoles(source: Session): Promise<Role[]> {
  const { readable } = await source.one<{ readable: boolean }>(
    `SELECT has_table_privilege('pg_authid', 'SELECT') AS readable`,
  );
  const rows = await source.query<RoleRow>(
    `SELECT r.rolname AS name, r.rolcanlogin AS login, r.rolinherit AS inherit, r.rolsuper AS super,
            r.rolcreatedb AS createdb, r.rolcreaterole AS createrole, r.rolreplication AS replication,
            r.rolbypassrls AS bypassrls, r.rolconnlimit AS "connectionLimit", r.rolvaliduntil::text AS "validUntil",
            coalesce((SELECT setconfig FROM pg_db_role_setting WHERE setrole = r.oid AND setdatabase = 0), '{}') AS settings,
            shobj_description(r.oid, 'pg_authid') AS comment,
            ${readable ? 'r.rolpassword' : 'NULL'} AS verifier
       FROM ${readable ? 'pg_authid' : 'pg_roles'} r
      WHERE r.rolname !~ '^pg_' ORDER BY r.rolname`,
  );
  return rows.map((row) => {
    const { name, login, inherit, connectionLimit, validUntil, settings, comment } = row;
    const has = [row.super, row.createdb, row.createrole, row.replication, row.bypassrls];
    const attributes = ATTRIBUTES.filter((_, i) => has[i]);
    const verifier = readable ? { known: true as const, value: row.verifier } : { known: false as const };
    return { name, login, inherit, attributes, connectionLimit, validUntil, settings, comment, verifier };
  });
}

export async function readMemberships(source: Session): Promise<Membership[]> {
  return source.query<Membership>(
    `SELECT r.rolname AS role, m.rolname AS member, CASE WHEN g.oid <> 10 THEN g.rolname END AS grantor,
            a.admin_option AS admin, (to_jsonb(a) ->> 'inherit_option')::bool AS inherit, (to_jsonb(a) ->> 'set_option')::bool AS set
       FROM pg_auth_members a
       JOIN pg_roles r ON r.oid = a.roleid JOIN pg_roles m ON m.oid = a.member LEFT JOIN pg_roles g ON g.oid = a.grantor
      WHERE m.rolname !~ '^pg_'
      ORDER BY r.rolname, m.rolname`,
  );
}

export interface ParameterPrivilege {
  parameter: string;
  /** Null: everybody. */
  grantee: string | null;
  privilege: 'SET' | 'ALTER SYSTEM';
  grantable: boolean;
}

/** Since 15. */
export async function readParameterPrivileges(source: Session): Promise<ParameterPrivilege[]> {
  if (source.version < 150000) return [];
  return source.query<ParameterPrivilege>(
    `SELECT p.parname AS parameter, r.rolname AS grantee, a.privilege_type AS privilege, a.is_grantable AS grantable
       FROM pg_parameter_acl p, aclexplode(p.paracl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
      WHERE a.grantee <> 10 ORDER BY 1, 2, 3`,
  );
}

export async function readRoleNames(target: Session): Promise<Set<string>> {
  const rows = await target.query<{ name: string }>('SELECT rolname AS name FROM pg_roles');
  return new Set(rows.map(({ name }) => name));
}

/** `password`: literal for PASSWORD, null for none. `attributes`: false leaves out what a server may refuse. */
export function createRoleSql(role: Role, password: string | null, attributes: boolean): string {
  const options = [role.login ? 'LOGIN' : 'NOLOGIN', role.inherit ? 'INHERIT' : 'NOINHERIT'];
  if (attributes) options.push(...role.attributes);
  options.push(`CONNECTION LIMIT ${role.connectionLimit}`);
  if (role.validUntil !== null) options.push(`VALID UNTIL ${quoteLiteral(role.validUntil)}`);
  if (password !== null) options.push(`PASSWORD ${quoteLiteral(password)}`);
  return `CREATE ROLE ${quoteIdent(role.name)} WITH ${options.join(' ')}`;
}

export interface RolePassword {
  /** For PASSWORD; null: none. */
  stored: string | null;
  /** The password itself, where it was made up. */
  placeholder: string | null;
}

/** Whether the role's own password cannot be had, or is not wanted. A role that had none gets none. */
export const needsPlaceholder = ({ verifier, login }: Role, wish: 'copy' | 'placeholder'): boolean =>
  verifier.known ? verifier.value !== null && wish === 'placeholder' : login;

export async function passwordFor(role: Role, wish: 'copy' | 'placeholder'): Promise<RolePassword> {
  if (!needsPlaceholder(role, wish))
    return { stored: role.verifier.known ? role.verifier.value : null, placeholder: null };
  const placeholder = randomBytes(24).toString('base64url');
  return { stored: await scramVerifier(placeholder), placeholder };
}

/** GUC_LIST_QUOTE (pg_dump's variable_is_guc_list_quote): one quoted string would be one element with commas in it. */
const LISTS: readonly string[] = [
  'local_preload_libraries',
  'search_path',
  'session_preload_libraries',
  'shared_preload_libraries',
  'temp_tablespaces',
  'unix_socket_directories',
];

export const alterRoleSettingSql = (role: string, setting: string): string =>
  settingSql(`ROLE ${quoteIdent(role)}`, setting);

/** ALTER … SET for a setting as the catalog keeps it; `whose` is SQL. */
export function settingSql(whose: string, setting: string): string {
  const equals = setting.indexOf('=');
  const [name, value] = [setting.slice(0, equals), setting.slice(equals + 1)];
  const elements = LISTS.includes(name.toLowerCase()) ? splitList(value) : [value];
  return `ALTER ${whose} SET ${quoteIdent(name)} TO ${elements.map(quoteLiteral).join(', ') || "''"}`;
}

/** The elements of a stored list such as `public, "My Schema"`. */
export function splitList(value: string): string[] {
  const elements = value.matchAll(/\s*(?:"((?:[^"]|"")*)"|([^,\s]+))\s*(?:,|$)/g);
  return [...elements].map(([, quoted, plain]) => quoted?.replaceAll('""', '"') ?? plain ?? '');
}

/** The options of a membership came with 16. */
export function grantMembershipSql(m: Membership, version: number, withGrantor: boolean): string {
  const option = (name: string, on: boolean) => `${name} ${on ? 'TRUE' : 'FALSE'}`;
  const options = [option('ADMIN', m.admin)];
  if (m.inherit !== null) options.push(option('INHERIT', m.inherit));
  if (m.set !== null) options.push(option('SET', m.set));
  const given = version >= 160000 ? ` WITH ${options.join(', ')}` : m.admin ? ' WITH ADMIN OPTION' : '';
  const by = withGrantor && m.grantor !== null ? ` GRANTED BY ${quoteIdent(m.grantor)}` : '';
  return `GRANT ${quoteIdent(m.role)} TO ${quoteIdent(m.member)}${given}${by}`;
}

export function grantParameterSql({ parameter, grantee, privilege, grantable }: ParameterPrivilege): string {
  const to = grantee === null ? 'PUBLIC' : quoteIdent(grantee);
  return `GRANT ${privilege} ON PARAMETER ${quoteIdent(parameter)} TO ${to}${grantable ? ' WITH GRANT OPTION' : ''}`;
}
