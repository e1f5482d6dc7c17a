import { displayName, quoteIdent, quoteName } from '../postgres/identifier.ts';
import { isPublished } from '../postgres/scope.ts';
import { maySubscribe, readExtras } from '../postgres/subscription-commands.ts';
import type { Named } from './catalog.ts';
import type { ClusterContext, DatabaseContext, Seen } from './check.ts';
import { mayCreateExtension } from './extensions.ts';
import { isAdministrator, readOwnRole } from './privileges.ts';

/** pg_create_subscription came with 16; before, only a superuser or what a provider puts in its place. */
export async function createSubscription({ target }: ClusterContext): Promise<Seen[]> {
  const role = await readOwnRole(target);
  if (isAdministrator(role) || (await maySubscribe(target))) return [];
  // Whether it helps depends on the database.
  if ((await readExtras(target)).available) return [];
  const name = quoteIdent(role.name);
  if (target.version >= 160000)
    return [
      {
        object: name,
        message: `Role ${name} may not create a subscription on the target.`,
        remedy: `GRANT pg_create_subscription TO ${name};`,
      },
    ];
  return [
    {
      object: name,
      message: `Role ${name} may not create a subscription on the target: before PostgreSQL 16, only a superuser may, or the functions of the extension aiven_extras, which the target does not have.`,
      remedy: `ALTER ROLE ${name} SUPERUSER; -- or install aiven_extras on the target, or set "method" to "dump"`,
    },
  ];
}

/** The way for a role that may not subscribe itself leads through functions, which it must find or make in the database. */
export async function extrasInDatabase({ target, targetExists, database }: DatabaseContext): Promise<Seen[]> {
  const role = await readOwnRole(target);
  if (isAdministrator(role) || (await maySubscribe(target))) return [];
  const { available, installed, usable } = await readExtras(target);
  if (!available || (targetExists && installed && usable)) return [];
  const name = quoteIdent(role.name);
  const object = quoteIdent(database);
  const use = `GRANT USAGE ON SCHEMA aiven_extras TO ${name};`;
  if (targetExists && installed)
    return [
      {
        object,
        message: `Role ${name} may not create a subscription on the target, nor use the functions of aiven_extras, which may.`,
        remedy: use,
      },
    ];
  if (await mayCreateExtension(target, 'aiven_extras')) return [];
  return [
    {
      object,
      message: `Role ${name} may not create a subscription on the target, nor the extension aiven_extras, whose functions may.`,
      remedy: `${targetExists ? '' : `CREATE DATABASE ${object} OWNER ${name};\n\\connect ${object}\n`}CREATE EXTENSION aiven_extras;\n${use} -- by a superuser, in database ${object} on the target`,
    },
  ];
}

/** From 16 on a subscription whose owner is no superuser must log in to the source with a password (manual, 29.11). */
export async function subscriptionPassword({ target, sourceForTarget }: ClusterContext): Promise<Seen[]> {
  const role = await readOwnRole(target);
  const { password, passfile } = sourceForTarget;
  // What a passfile says depends on the database; the trial subscription of each one finds out.
  if (role.superuser || target.version < 160000 || password !== undefined || passfile !== undefined) return [];
  // The functions of aiven_extras give it to a superuser.
  if (!(await maySubscribe(target)) && (await readExtras(target)).available) return [];
  return [
    {
      object: quoteIdent(role.name),
      message: `Role ${quoteIdent(role.name)} is no superuser on the target, so its subscription must give the source a password, and the connection to the source has none.`,
      remedy: 'Give the source URI in the worker\'s environment a password, or name one in "sourceForTarget".',
    },
  ];
}

/**
 * From 16 on, changes are applied as the table's owner, whoever owns the subscription; and whom FORCE subjects to the
 * table's policies, an apply worker refuses to write for.
 */
export async function forcedRowSecurity({ source, target, plan, tables }: DatabaseContext): Promise<Seen[]> {
  if (target.version < 160000) return [];
  const rows = await source.query<Named & { owner: string; exempt: boolean }>(
    `SELECT n.nspname AS schema, c.relname AS name, r.rolname AS owner, r.rolsuper OR r.rolbypassrls AS exempt
       FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_roles r ON r.oid = c.relowner
      WHERE c.oid = ANY ($1::oid[]) AND c.relrowsecurity AND c.relforcerowsecurity ORDER BY 1, 2`,
    [tables.filter(isPublished).map(({ oid }) => oid)],
  );
  if (rows.length === 0) return [];
  const own = await readOwnRole(target);
  const there = await target.query<{ name: string; exempt: boolean }>(
    `SELECT rolname AS name, rolsuper OR rolbypassrls AS exempt FROM pg_roles WHERE rolname = ANY ($1)`,
    [rows.map(({ owner }) => owner)],
  );
  /** A role that is not there is made with its attributes, where our own role may give them. */
  const isExempt = (owner: string, onSource: boolean): boolean =>
    plan.owners
      ? (there.find(({ name }) => name === owner)?.exempt ?? (onSource && own.superuser))
      : own.superuser || own.bypassrls;
  return rows
    .filter(({ owner, exempt }) => !isExempt(owner, exempt))
    .map(({ schema, name, owner }) => ({
      object: displayName(schema, name),
      message: `The table forces row security on its owner, ${quoteIdent(owner)}, as whom the target applies changes: it would refuse them.`,
      remedy: `ALTER TABLE ${quoteName(schema, name)} NO FORCE ROW LEVEL SECURITY; -- on the source; or give the owner BYPASSRLS on the target`,
    }));
}
