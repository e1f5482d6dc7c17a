import type { Session } from '../postgres/connection.ts';
import { databaseExists } from '../postgres/database.ts';
import { displayName, quoteIdent, quoteName } from '../postgres/identifier.ts';
import { isPublished } from '../postgres/scope.ts';
import type { Named } from './catalog.ts';
import { ofExtension, USER_SCHEMA } from './catalog.ts';
import type { ClusterContext, DatabaseContext, Seen } from './check.ts';

interface RoleFacts {
  name: string;
  superuser: boolean;
  replication: boolean;
  createdb: boolean;
  createrole: boolean;
  bypassrls: boolean;
  /** Roles of managed servers that it has the rights of. */
  providers: string[];
}

/** Stand-ins for a superuser on managed servers, which those servers let do what only a superuser may. */
const PROVIDER_ADMINISTRATORS = ['rds_superuser', 'cloudsqlsuperuser', 'alloydbsuperuser', 'azure_pg_admin'];

export const readOwnRole = (session: Session): Promise<RoleFacts> =>
  session.one<RoleFacts>(
    `SELECT rolname AS name, rolsuper AS superuser, rolreplication AS replication, rolcreatedb AS createdb,
            rolcreaterole AS createrole, rolbypassrls AS bypassrls,
            array(SELECT p.rolname::text FROM pg_roles p
                   WHERE p.rolname = ANY ($1) AND pg_has_role(p.oid, 'MEMBER')) AS providers
       FROM pg_roles WHERE rolname = current_user`,
    [['rds_replication', ...PROVIDER_ADMINISTRATORS]],
  );

export const isAdministrator = (role: RoleFacts): boolean =>
  role.superuser || role.providers.some((name) => PROVIDER_ADMINISTRATORS.includes(name));

export async function replicationAttribute({ source }: ClusterContext): Promise<Seen[]> {
  const role = await readOwnRole(source);
  if (role.superuser || role.replication || role.providers.includes('rds_replication')) return [];
  const { rds } = await source.one<{ rds: boolean }>(
    `SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = 'rds_replication') AS rds`,
  );
  const name = quoteIdent(role.name);
  return [
    {
      object: name,
      message: `Role ${name} may not make a replication slot.`,
      remedy: rds ? `GRANT rds_replication TO ${name};` : `ALTER ROLE ${name} REPLICATION;`,
    },
  ];
}

export async function createDatabases({ target, plan, databases }: ClusterContext): Promise<Seen[]> {
  const role = await readOwnRole(target);
  if (!plan.createDatabases || role.superuser || role.createdb) return [];
  const missing: string[] = [];
  for (const { database } of databases) if (!(await databaseExists(target, database))) missing.push(database);
  const name = quoteIdent(role.name);
  return missing.map((database) => ({
    object: quoteIdent(database),
    message: `Database ${quoteIdent(database)} is not there on the target, and role ${name} may not create it.`,
    remedy: `ALTER ROLE ${name} CREATEDB;`,
  }));
}

export async function createRoles({ target }: ClusterContext): Promise<Seen[]> {
  const role = await readOwnRole(target);
  if (role.superuser || role.createrole) return [];
  const name = quoteIdent(role.name);
  return [
    {
      object: name,
      message: `Role ${name} may not create roles on the target; what belongs to a role that is missing there will belong to ${name}.`,
      remedy: `ALTER ROLE ${name} CREATEROLE; -- or create the roles yourself first.`,
    },
  ];
}

const me = async (session: Session): Promise<string> =>
  quoteIdent((await session.one<{ name: string }>('SELECT current_user AS name')).name);

export async function schemaUsage({ source }: DatabaseContext): Promise<Seen[]> {
  const rows = await source.query<{ name: string }>(
    `SELECT n.nspname AS name FROM pg_namespace n
      WHERE ${USER_SCHEMA} AND NOT has_schema_privilege(n.oid, 'USAGE')
        AND EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'S', 'm'))
      ORDER BY 1`,
  );
  if (rows.length === 0) return [];
  const name = await me(source);
  return rows.map((row) => ({
    object: quoteIdent(row.name),
    message: `${name} has no USAGE on the schema.`,
    remedy: `GRANT USAGE ON SCHEMA ${quoteIdent(row.name)} TO ${name};`,
  }));
}

/** From so many objects of a schema on, one GRANT is for all of them. */
const IN_BULK = 20;

/** The GRANT for each of `rows`, all of which lack it. */
function grantSelect(kind: 'TABLE' | 'SEQUENCE', rows: readonly Named[], role: string): (row: Named) => string {
  const missing = new Map<string, number>();
  for (const { schema } of rows) missing.set(schema, (missing.get(schema) ?? 0) + 1);
  return ({ schema, name }) =>
    (missing.get(schema) ?? 0) < IN_BULK
      ? `GRANT SELECT ON ${kind} ${quoteName(schema, name)} TO ${role};`
      : `GRANT SELECT ON ALL ${kind}S IN SCHEMA ${quoteIdent(schema)} TO ${role};`;
}

/** Of every table, in scope or not: reading the schema locks each one, and a lock needs SELECT. */
export async function tableSelect({ source, tables }: DatabaseContext): Promise<Seen[]> {
  const rows = await source.query<Named>(
    `SELECT n.nspname AS schema, c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE ${USER_SCHEMA} AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND NOT has_table_privilege(c.oid, 'SELECT')
        AND (c.oid = ANY ($1::oid[]) OR NOT ${ofExtension('pg_class', 'c.oid')})
      ORDER BY 1, 2`,
    [tables.map(({ oid }) => oid)],
  );
  if (rows.length === 0) return [];
  const name = await me(source);
  const grant = grantSelect('TABLE', rows, name);
  return rows.map((row) => ({
    object: displayName(row.schema, row.name),
    message: `${name} may not read the table.`,
    remedy: grant(row),
  }));
}

export async function sequenceSelect({ source }: DatabaseContext): Promise<Seen[]> {
  const rows = await source.query<Named>(
    `SELECT n.nspname AS schema, c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE ${USER_SCHEMA} AND c.relkind = 'S' AND c.relpersistence <> 't'
        -- In a CASE, because the planner may ask the function about other relations first, and then it fails.
        AND CASE c.relkind WHEN 'S' THEN NOT has_sequence_privilege(c.oid, 'SELECT') END
        AND NOT ${ofExtension('pg_class', 'c.oid')}
      ORDER BY 1, 2`,
  );
  if (rows.length === 0) return [];
  const name = await me(source);
  const grant = grantSelect('SEQUENCE', rows, name);
  return rows.map((row) => ({
    object: displayName(row.schema, row.name),
    message: `${name} may not read the sequence.`,
    remedy: grant(row),
  }));
}

/** COPY would bring no row that a policy hides. */
export async function rowSecurity({ source, tables }: DatabaseContext): Promise<Seen[]> {
  const rows = await source.query<Named>(
    `SELECT n.nspname AS schema, c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE c.oid = ANY ($1::oid[]) AND row_security_active(c.oid) ORDER BY 1, 2`,
    [tables.map(({ oid }) => oid)],
  );
  if (rows.length === 0) return [];
  const name = await me(source);
  return rows.map((row) => ({
    object: displayName(row.schema, row.name),
    message: `Row security hides rows of the table from ${name}.`,
    remedy: `ALTER ROLE ${name} BYPASSRLS;`,
  }));
}

export async function tableOwner({ source, tables }: DatabaseContext): Promise<Seen[]> {
  const rows = await source.query<Named & { owner: string; superuser: boolean }>(
    `SELECT n.nspname AS schema, c.relname AS name, r.rolname AS owner, r.rolsuper AS superuser
       FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_roles r ON r.oid = c.relowner
      WHERE c.oid = ANY ($1::oid[]) AND NOT pg_has_role(c.relowner, 'USAGE') ORDER BY 1, 2`,
    [tables.filter(isPublished).map(({ oid }) => oid)],
  );
  if (rows.length === 0) return [];
  const role = await me(source);
  return rows.map(({ schema, name, owner, superuser }) => ({
    object: displayName(schema, name),
    message: `The table belongs to ${quoteIdent(owner)}, and only its owner may publish it.`,
    // Membership in a superuser is more than anybody should get for this.
    remedy: superuser
      ? `ALTER TABLE ${quoteName(schema, name)} OWNER TO ${role};`
      : `GRANT ${quoteIdent(owner)} TO ${role};`,
  }));
}

export async function createPublication({ source, database }: DatabaseContext): Promise<Seen[]> {
  const sql = `SELECT has_database_privilege(current_database(), 'CREATE') AS may`;
  if ((await source.one<{ may: boolean }>(sql)).may) return [];
  const name = await me(source);
  return [
    {
      object: quoteIdent(database),
      message: `${name} may not create a publication in the database.`,
      remedy: `GRANT CREATE ON DATABASE ${quoteIdent(database)} TO ${name};`,
    },
  ];
}

/** In a database that is somebody else's; in one that we make, all of this is ours. */
export async function createInTarget({ source, target, targetExists, database }: DatabaseContext): Promise<Seen[]> {
  if (!targetExists) return [];
  const name = await me(target);
  const { may } = await target.one<{ may: boolean }>(
    `SELECT has_database_privilege(current_database(), 'CREATE') AS may`,
  );
  const used = await source.query<{ name: string }>(
    `SELECT n.nspname AS name FROM pg_namespace n
      WHERE ${USER_SCHEMA} AND EXISTS (SELECT FROM pg_class c
        WHERE c.relnamespace = n.oid AND NOT ${ofExtension('pg_class', 'c.oid')})`,
  );
  const closed = await target.query<{ name: string }>(
    `SELECT nspname AS name FROM pg_namespace WHERE nspname = ANY ($1) AND NOT has_schema_privilege(oid, 'CREATE') ORDER BY 1`,
    [used.map((schema) => schema.name)],
  );
  const schemas = closed.map((schema) => ({
    object: quoteIdent(schema.name),
    message: `${name} may not create anything in the schema, which is there on the target already.`,
    remedy: `GRANT CREATE ON SCHEMA ${quoteIdent(schema.name)} TO ${name};`,
  }));
  if (may) return schemas;
  return [
    {
      object: quoteIdent(database),
      message: `${name} may not create schemas in the database.`,
      remedy: `GRANT CREATE ON DATABASE ${quoteIdent(database)} TO ${name};`,
    },
    ...schemas,
  ];
}
