import type { Session } from '../postgres/connection.ts';
import { quoteIdent } from '../postgres/identifier.ts';
import { FIRST_NORMAL_OID } from './catalog.ts';
import type { DatabaseContext, Seen } from './check.ts';
import { isAdministrator, readOwnRole } from './privileges.ts';

/** Without them nothing else fails, so they are left out where they are refused: `lenient.ts` does so. */
const OPTIONAL = (version: number): string => `
  SELECT 'pg_event_trigger', oid FROM pg_event_trigger
  UNION ALL SELECT 'pg_publication', oid FROM pg_publication WHERE puballtables
  ${version >= 150000 ? `UNION ALL SELECT 'pg_publication', pnpubid FROM pg_publication_namespace` : ''}`;

/** Code or behaviour that the server cannot keep in its bounds: each of these the manual reserves to superusers. */
const NEEDED = `
  SELECT 'pg_proc', p.oid FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
   WHERE NOT l.lanpltrusted OR p.proleakproof
  UNION ALL SELECT 'pg_proc', a.aggfnoid FROM pg_aggregate a WHERE a.aggtranstype = 'internal'::regtype
  UNION ALL SELECT 'pg_type', t.oid FROM pg_type t
   WHERE t.typtype = 'b' AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid)
  UNION ALL SELECT 'pg_cast', oid FROM pg_cast WHERE castmethod = 'b'
  UNION ALL SELECT 'pg_opclass', oid FROM pg_opclass
  UNION ALL SELECT 'pg_opfamily', oid FROM pg_opfamily f WHERE NOT EXISTS (SELECT FROM pg_opclass c WHERE c.opcfamily = f.oid)
  UNION ALL SELECT 'pg_ts_parser', oid FROM pg_ts_parser
  UNION ALL SELECT 'pg_ts_template', oid FROM pg_ts_template
  UNION ALL SELECT 'pg_am', oid FROM pg_am
  UNION ALL SELECT 'pg_language', oid FROM pg_language
  UNION ALL SELECT 'pg_foreign_data_wrapper', oid FROM pg_foreign_data_wrapper`;

/** What our role may not make on the target, although it may be all that is asked of it otherwise. */
export async function superuserObjects({ source, target }: DatabaseContext): Promise<Seen[]> {
  const own = await readOwnRole(target);
  if (isAdministrator(own)) return [];
  const optional = (await list(source, OPTIONAL(source.version))).map(({ type, name }): Seen => ({
    severity: 'warning',
    object: `${type} ${name}`,
    message: `Only a superuser of the target can make it, and ${quoteIdent(own.name)} is none: it will be left out.`,
    remedy: 'After the migration, let a superuser make it on the target.',
  }));
  const needed = (await list(source, NEEDED)).map(({ type, name }): Seen => ({
    object: `${type} ${name}`,
    message: `Only a superuser of the target can make it, and ${quoteIdent(own.name)} is none.`,
    remedy: `Migrate as a superuser of the target, or drop it from the source when nobody needs it.`,
  }));
  return [...optional, ...needed, ...(await foreignServers(source, target)), ...(await settings(source, target))];
}

const list = (source: Session, objects: string): Promise<{ type: string; name: string }[]> =>
  source.query(
    `SELECT DISTINCT i.type, i.identity AS name
       FROM (${objects}) AS o (catalog, oid), pg_identify_object(o.catalog::regclass, o.oid, 0) AS i
      WHERE o.oid >= ${FIRST_NORMAL_OID} AND coalesce(i.schema, '') <> 'pgtransit' AND coalesce(i.schema, '') !~ '^pg_temp'
        AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = o.catalog::regclass AND e.objid = o.oid AND e.deptype IN ('e', 'i'))
      ORDER BY 1, 2`,
  );

/** Its wrapper comes with an extension, which gives nobody the right to use it. */
async function foreignServers(source: Session, target: Session): Promise<Seen[]> {
  const servers = await source.query<{ name: string; wrapper: string }>(
    `SELECT srvname AS name, fdwname AS wrapper FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw
      WHERE NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_foreign_server'::regclass AND e.objid = s.oid AND e.deptype = 'e')
      ORDER BY 1`,
  );
  const usable = await target.query<{ name: string }>(
    `SELECT fdwname AS name FROM pg_foreign_data_wrapper WHERE has_foreign_data_wrapper_privilege(oid, 'USAGE')`,
  );
  const { me } = await target.one<{ me: string }>('SELECT quote_ident(current_user) AS me');
  return servers
    .filter(({ wrapper }) => !usable.some(({ name }) => name === wrapper))
    .map(({ name, wrapper }) => ({
      object: `server ${quoteIdent(name)}`,
      message: `On the target ${me} may not use the foreign data wrapper ${quoteIdent(wrapper)}, and so cannot make the server.`,
      remedy: `GRANT USAGE ON FOREIGN DATA WRAPPER ${quoteIdent(wrapper)} TO ${me}; -- in the database on the target, once a superuser has made the extension there`,
    }));
}

/** Of the database, left out line by line; of a function, without which it would not be the same. */
async function settings(source: Session, target: Session): Promise<Seen[]> {
  const used = await source.query<{ name: string; owner: string; needed: boolean }>(
    `SELECT split_part(c, '=', 1) AS name, 'database ' || quote_ident(current_database()) AS owner, false AS needed
       FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) AS c
      WHERE d.datname = current_database()
     UNION ALL
     SELECT split_part(c, '=', 1), 'FUNCTION ' || p.oid::regprocedure, true FROM pg_proc p, unnest(p.proconfig) AS c
      WHERE p.oid >= ${FIRST_NORMAL_OID}
        AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_proc'::regclass AND e.objid = p.oid AND e.deptype = 'e')`,
  );
  const refused = await target.query<{ name: string }>(
    `SELECT name FROM pg_settings WHERE name = ANY ($1) AND context LIKE 'superuser%'
        ${target.version >= 150000 ? `AND NOT has_parameter_privilege(name, 'SET')` : ''}`,
    [used.map(({ name }) => name)],
  );
  return used
    .filter(({ name }) => refused.some((setting) => setting.name === name))
    .map(({ name, owner, needed }): Seen => {
      const message = `It sets ${name}, which only a superuser of the target may`;
      return needed
        ? { object: owner, message: `${message}.`, remedy: `ALTER ${owner} RESET ${name}; -- on the source` }
        : { severity: 'warning', object: owner, message: `${message}: the setting will be left out.` };
    });
}
