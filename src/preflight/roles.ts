import type { Session } from '../postgres/connection.ts';
import { quoteIdent, quoteLiteral } from '../postgres/identifier.ts';
import type { Role } from '../postgres/role.ts';
import { readRoleNames, readRoles, splitList } from '../postgres/role.ts';
import { planAllRolesSettings, readAllRolesSettings } from '../postgres/role-all.ts';
import { ofExtension, USER_SCHEMA } from './catalog.ts';
import type { ClusterContext, DatabaseContext, Seen } from './check.ts';
import { readOwnRole } from './privileges.ts';

/** The roles that the migration will make: those that the target lacks. */
async function missingRoles({ source, target, plan }: ClusterContext): Promise<Role[]> {
  const present = await readRoleNames(target);
  const roles = await readRoles(source);
  return roles.filter(({ name }) => !present.has(name) && !plan.roles.exclude.includes(name));
}

/**
 * Attributes that our role on the target may not give, so that the new role goes without. Only a superuser makes another;
 * from 16 on one gives the rest if one has it oneself, before that REPLICATION and BYPASSRLS were for superusers too.
 */
export async function roleAttributes(context: ClusterContext): Promise<Seen[]> {
  const { target } = context;
  const own = await readOwnRole(target);
  if (own.superuser || !own.createrole) return [];
  const since16 = target.version >= 160000;
  const mayGive: Readonly<Record<Role['attributes'][number], boolean>> = {
    SUPERUSER: false,
    CREATEROLE: true,
    CREATEDB: own.createdb || !since16,
    REPLICATION: own.replication && since16,
    BYPASSRLS: own.bypassrls && since16,
  };
  return (await missingRoles(context)).flatMap(({ name, attributes }) => {
    const lost = attributes.filter((attribute) => !mayGive[attribute]);
    if (lost.length === 0) return [];
    return [
      {
        object: quoteIdent(name),
        message: `The role is made on the target without ${lost.join(' and ')}, which ${quoteIdent(own.name)} may not give there.`,
        remedy: `ALTER ROLE ${quoteIdent(name)} ${lost.join(' ')}; -- by a superuser of the target, or put it into "roles.exclude"`,
      },
    ];
  });
}

export async function settingsOfAllRoles({ source, target }: ClusterContext): Promise<Seen[]> {
  const planned = await planAllRolesSettings(target, await readAllRolesSettings(source));
  return planned.flatMap(({ name, sql, obstacle }) =>
    obstacle === null
      ? []
      : [
          {
            object: quoteIdent(name),
            message: `The source has this setting for all roles in all databases (ALTER ROLE ALL). It is not carried over: ${obstacle}.`,
            remedy: `${sql}; -- on the target, if all its databases are to have it`,
          },
        ],
  );
}

export async function roleLabels({ source }: ClusterContext): Promise<Seen[]> {
  const rows = await source.query<{ role: string; provider: string }>(
    `SELECT rolname AS role, provider FROM pg_shseclabel JOIN pg_roles ON oid = objoid
      WHERE classoid = 'pg_authid'::regclass ORDER BY 1, 2`,
  );
  return rows.map(({ role, provider }) => ({
    object: quoteIdent(role),
    message: `The role has a security label of ${quoteLiteral(provider)}, which is not carried over.`,
    remedy: `SECURITY LABEL FOR ${quoteIdent(provider)} ON ROLE ${quoteIdent(role)} IS '…'; -- on the target`,
  }));
}

/** Empty for who may not see it; who may not, makes no superusers either, and is told so as a lost attribute. */
async function readList(session: Session, name: string): Promise<string[]> {
  const { value } = await session.one<{ value: string | null }>(
    `SELECT CASE WHEN pg_has_role('pg_read_all_settings', 'USAGE') THEN current_setting($1, true) END AS value`,
    [name],
  );
  return splitList(value ?? '');
}

/** aiven_gatekeeper lets nobody make a superuser, but for the names on its list. */
export async function gatekeeper(context: ClusterContext): Promise<Seen[]> {
  const { target } = context;
  const libraries = await readList(target, 'shared_preload_libraries');
  if (!libraries.some((library) => library.split('/').at(-1) === 'aiven_gatekeeper')) return [];
  const reserved = await readList(target, 'aiven.pg_security_agent_reserved_roles');
  return (await missingRoles(context))
    .filter(({ name, attributes }) => attributes.includes('SUPERUSER') && !reserved.includes(name))
    .map(({ name }) => ({
      object: quoteIdent(name),
      message: `The role is a superuser on the source, and the target's aiven_gatekeeper allows no superusers but its own.`,
      remedy: `Put ${name} into "roles.exclude", or ALTER ROLE ${quoteIdent(name)} NOSUPERUSER; -- on the source`,
    }));
}

/** Objects are given to their owners by SET ROLE's rules: who may not become the owner keeps them. */
export async function owners({ source, target, plan, database }: DatabaseContext): Promise<Seen[]> {
  const own = await readOwnRole(target);
  if (!plan.owners || own.superuser) return [];
  const names = (await readOwners(source)).filter((name) => name !== own.name);
  const privilege = target.version >= 160000 ? 'SET' : 'MEMBER';
  const there = await target.query<{ name: string; superuser: boolean; may: boolean }>(
    `SELECT rolname AS name, rolsuper AS superuser, pg_has_role(oid, '${privilege}') AS may FROM pg_roles WHERE rolname = ANY ($1)`,
    [names],
  );
  const me = quoteIdent(own.name);
  return names.flatMap((name) => {
    const known = there.find((role) => role.name === name);
    // A role that the migration makes, its maker may become.
    if (known?.may ?? (own.createrole && !plan.roles.exclude.includes(name))) return [];
    return [
      {
        object: quoteIdent(name),
        message:
          known === undefined
            ? `The role, which owns objects in database ${quoteIdent(database)}, will not be there on the target; they will belong to ${me}.`
            : `On the target, ${me} may not SET ROLE to the role, which owns objects in database ${quoteIdent(database)}; they will belong to ${me}.`,
        remedy: ownerRemedy(quoteIdent(name), me, known, plan.roles.exclude.includes(name)),
      },
    ];
  });
}

function ownerRemedy(name: string, me: string, known: { superuser: boolean } | undefined, excluded: boolean): string {
  // Membership in a superuser is more than anybody should get for this.
  if (known?.superuser === true) return 'After the migration, let a superuser give them back on the target.';
  if (known !== undefined) return `GRANT ${name} TO ${me}; -- on the target`;
  return excluded
    ? `CREATE ROLE ${name}; GRANT ${name} TO ${me}; -- on the target`
    : `ALTER ROLE ${me} CREATEROLE; -- on the target; then the migration makes the role`;
}

/** pg_shdepend does not note what belongs to the bootstrap superuser, as what trusted extensions make does. */
const readOwners = async (source: Session): Promise<string[]> =>
  (
    await source.query<{ name: string }>(
      `SELECT rolname AS name FROM pg_roles WHERE oid IN (
         SELECT datdba FROM pg_database WHERE datname = current_database()
         UNION SELECT refobjid FROM pg_shdepend
                WHERE deptype = 'o' AND refclassid = 'pg_authid'::regclass
                  AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
         UNION SELECT c.relowner FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE ${USER_SCHEMA} AND NOT ${ofExtension('pg_class', 'c.oid')}
         UNION SELECT p.proowner FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
                WHERE ${USER_SCHEMA} AND NOT ${ofExtension('pg_proc', 'p.oid')})
       ORDER BY 1`,
    )
  ).map(({ name }) => name);
