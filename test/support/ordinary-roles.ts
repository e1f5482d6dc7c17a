import type { PostgresAccess } from '../../lab/postgres-access.ts';
import { startPostgres, type PostgresServer } from '../../lab/postgres-server.ts';
import { TRAFFIC_SCHEMA } from './traffic.ts';

/** Everything that a password may hold, so that no layer may forget to quote it. */
export const PASSWORD = `p@ss 'w"0\\rd%/:?#`;

/** A server that asks everybody for a password: only then a subscription of an ordinary role can be made. */
export const askingServer = (major: number, binDir?: string): Promise<PostgresServer> =>
  startPostgres({ major, auth: 'scram-sha-256', ...(binDir === undefined ? {} : { binDir }) });

/** How the migration logs in. */
export const asMover = (server: PostgresAccess, database = 'postgres'): string =>
  server.uri(database, { user: 'mover', password: PASSWORD });

const quoted = `'${PASSWORD.replaceAll("'", "''")}'`;

/** The migration's role, with no right but to log in. */
export const BARE_ROLE = `CREATE ROLE mover LOGIN PASSWORD ${quoted};`;

/** On the source: an owner of everything who does not log in, an application that writes, and somebody who reads. */
export const SOURCE_ROLES = `
CREATE ROLE app_owner NOLOGIN;
CREATE ROLE app LOGIN PASSWORD ${quoted} IN ROLE app_owner;
CREATE ROLE reader LOGIN;
`;

/** What it takes on the source: to be a member of the owner, with REPLICATION, and for a fence to end sessions. */
export const SOURCE_RIGHTS = `
ALTER ROLE mover REPLICATION;
GRANT app_owner, pg_read_all_stats, pg_signal_backend TO mover;
`;

/** On the target: nothing but the right to make databases, roles and (from 16 on) subscriptions. */
export const targetRights = (major: number): string => `
ALTER ROLE mover CREATEDB CREATEROLE;
${major >= 16 ? 'GRANT pg_create_subscription TO mover;' : ''}
`;

/** What an owner can make without being a superuser, and what the owner's migration must therefore be able to make again. */
export const SHOP_SCHEMA = `
SET ROLE app_owner;
${TRAFFIC_SCHEMA}
CREATE SCHEMA "App";
CREATE EXTENSION hstore SCHEMA "App";
CREATE EXTENSION citext;
CREATE TABLE "App".tenant (id int PRIMARY KEY, name citext, tags "App".hstore);
INSERT INTO "App".tenant SELECT g, 'Tenant ' || g, 'a=>1' FROM generate_series(1, 50) g;
ALTER TABLE "App".tenant ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON "App".tenant TO reader USING (id = 1);
CREATE TYPE "App".mood AS ENUM ('sad', 'ok');
CREATE TABLE "App".diary (at timestamptz PRIMARY KEY DEFAULT now(), mood "App".mood);
INSERT INTO "App".diary (mood) VALUES ('ok');
CREATE VIEW "App".tenants AS SELECT id, name FROM "App".tenant;
CREATE STATISTICS "App".both ON id, name FROM "App".tenant;
CREATE FUNCTION "App".touch() RETURNS int LANGUAGE sql SECURITY DEFINER SET search_path = '' AS 'SELECT 1';
CREATE PUBLICATION own FOR TABLE account;
GRANT USAGE ON SCHEMA "App" TO reader;
GRANT SELECT ON "App".tenant TO reader WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES IN SCHEMA "App" GRANT SELECT ON TABLES TO reader;
COMMENT ON TABLE "App".tenant IS 'who pays';
SELECT lo_from_bytea(0, 'large');
RESET ROLE;
ALTER DATABASE shop SET search_path = "App", public;
ALTER DATABASE shop SET statement_timeout = '90s';
ALTER ROLE app IN DATABASE shop SET work_mem = '8MB';
GRANT CONNECT ON DATABASE shop TO reader;
`;

/** An owner has MAINTAIN since 17. */
const acl = (column: string): string =>
  `(SELECT string_agg(replace(a::text, 'arwdDxtm/', 'arwdDxt/'), ',' ORDER BY a::text) FROM unnest(${column}) a)`;

/** Who owns and may use what, one line each. A fence's own setting does not count. */
export const OWNERS_AND_GRANTS = `
SELECT concat_ws(' ', 'database', datdba::regrole, ${acl('datacl')}) FROM pg_database WHERE datname = current_database()
UNION ALL SELECT concat_ws(' ', 'setting', setrole::regrole, setting)
  FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase, unnest(setconfig) AS setting
 WHERE datname = current_database() AND setting !~ 'read_only'
UNION ALL SELECT concat_ws(' ', 'schema', nspowner::regrole, ${acl('nspacl')}) FROM pg_namespace WHERE nspname = 'App'
UNION ALL SELECT concat_ws(' ', 'relation', oid::regclass, relowner::regrole, relkind, relrowsecurity, ${acl('relacl')}, obj_description(oid, 'pg_class'))
  FROM pg_class WHERE relnamespace IN ('"App"'::regnamespace, 'public'::regnamespace) AND relkind IN ('r', 'p', 'v', 'm', 'S', 'i')
UNION ALL SELECT concat_ws(' ', 'type', typname, typowner::regrole) FROM pg_type WHERE typname = 'mood'
UNION ALL SELECT concat_ws(' ', 'function', proname, proowner::regrole, prosecdef, proconfig) FROM pg_proc WHERE proname IN ('touch', 'note_change')
UNION ALL SELECT concat_ws(' ', 'policy', polname, polroles::regrole[]) FROM pg_policy
UNION ALL SELECT concat_ws(' ', 'defaults', defaclrole::regrole, defaclacl) FROM pg_default_acl
UNION ALL SELECT concat_ws(' ', 'extension', extname, extnamespace::regnamespace) FROM pg_extension WHERE extname <> 'aiven_extras'
UNION ALL SELECT concat_ws(' ', 'statistics', stxname, stxowner::regrole) FROM pg_statistic_ext
UNION ALL SELECT concat_ws(' ', 'publication', pubname, pubowner::regrole) FROM pg_publication
UNION ALL SELECT concat_ws(' ', 'large object', lomowner::regrole, encode(lo_get(oid), 'escape')) FROM pg_largeobject_metadata
UNION ALL SELECT concat_ws(' ', 'member', roleid::regrole, member::regrole) FROM pg_auth_members WHERE member::regrole::text IN ('app', 'reader')
ORDER BY 1`;
