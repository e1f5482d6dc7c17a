import type { PostgresAccess } from '../../lab/postgres-access.ts';
import { dumpedSchema } from './schema-fixture.ts';

/**
 * What a database is made of, but for rows, one line each: what one and the same pg_dump says (definitions, owners,
 * grants, comments, states, settings), and what it does not say. Rows: `compareDatabases`.
 */
export async function readState(
  programs: PostgresAccess,
  server: PostgresAccess,
  database: string,
): Promise<{ schema: string[]; rest: string[]; roles: string[] }> {
  const schema = await dumpedSchema(programs, server, database);
  return {
    schema: schema.split('\n').filter((line) => !NO_DIFFERENCE.test(line)),
    rest: (await server.psql(database, REST)).split('\n'),
    roles: (await server.psql(database, ROLES)).split('\n'),
  };
}

/** The fence of a cutover stays on the source. */
const NO_DIFFERENCE = /^ALTER DATABASE .* SET default_transaction_read_only /;

/** Bytes and owners of large objects, what is filled, valid, validated and switched on, and whose an extension is. */
const REST = `
SELECT concat_ws(' ', 'large object', oid, lomowner::regrole, lomacl, md5(lo_get(oid)), obj_description(oid, 'pg_largeobject')) FROM pg_largeobject_metadata
UNION ALL SELECT concat_ws(' ', 'relation', oid::regclass, relpersistence, relispopulated) FROM pg_class WHERE oid >= 16384 AND relkind IN ('r', 'p', 'm', 'S')
UNION ALL SELECT concat_ws(' ', 'index', indexrelid::regclass, indisvalid, indisclustered, indisreplident)
  FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid WHERE indexrelid >= 16384 AND relnamespace <> 'pg_toast'::regnamespace
UNION ALL SELECT concat_ws(' ', 'constraint', conrelid::regclass, conname, convalidated, conislocal) FROM pg_constraint WHERE oid >= 16384 AND contype <> 'n' AND conparentid = 0
UNION ALL SELECT concat_ws(' ', 'trigger', tgrelid::regclass, CASE WHEN tgisinternal THEN tgfoid::regproc::text ELSE tgname END, tgenabled) FROM pg_trigger
UNION ALL SELECT concat_ws(' ', 'extension', extname, extnamespace::regnamespace, extowner::regrole) FROM pg_extension
ORDER BY 1`;

/** With what is stored of their passwords, their settings, also those of all of them, and their members. */
const ROLES = `
SELECT concat_ws(' ', rolname, to_jsonb(r) - 'oid', shobj_description(oid, 'pg_authid')) FROM pg_authid r WHERE rolname !~ '^pg_'
UNION ALL SELECT concat_ws(' ', 'setting', setrole::regrole, coalesce(datname, 'everywhere'), setconfig)
  FROM pg_db_role_setting LEFT JOIN pg_database d ON d.oid = setdatabase WHERE setdatabase = 0 OR datname = current_database() AND setrole <> 0
UNION ALL SELECT concat_ws(' ', 'member', roleid::regrole, member::regrole, grantor::regrole, admin_option) FROM pg_auth_members
ORDER BY 1`;
