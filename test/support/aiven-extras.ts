import { cpSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { makeServerDir } from '../../lab/postgres-template.ts';
import { pgBin, workDir } from '../../lab/tools.ts';

/** With the names, arguments and rights of the functions of aiven_extras 1.1.18 that subscribe; for the rest see there. */
const FUNCTIONS = `
CREATE FUNCTION aiven_extras.pg_create_subscription(arg_subscription_name text, arg_connection_string text,
  arg_publication_name text, arg_slot_name text, arg_slot_create boolean = false, arg_copy_data boolean = true,
  arg_origin text = 'any')
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, aiven_extras AS $$
BEGIN
  EXECUTE format('CREATE SUBSCRIPTION %I CONNECTION %L PUBLICATION %I WITH (slot_name = %L, create_slot = %s, copy_data = %s)',
    arg_subscription_name, arg_connection_string, arg_publication_name, arg_slot_name, arg_slot_create::text, arg_copy_data::text);
END $$;

CREATE FUNCTION aiven_extras.pg_alter_subscription_enable(arg_subscription_name text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, aiven_extras AS $$
BEGIN
  EXECUTE format('ALTER SUBSCRIPTION %I ENABLE', arg_subscription_name);
END $$;

CREATE FUNCTION aiven_extras.pg_alter_subscription_disable(arg_subscription_name text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, aiven_extras AS $$
BEGIN
  EXECUTE format('ALTER SUBSCRIPTION %I DISABLE', arg_subscription_name);
END $$;

CREATE FUNCTION aiven_extras.pg_drop_subscription(arg_subscription_name text, arg_drop_repl_slot boolean = true)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, aiven_extras AS $$
BEGIN
  IF arg_drop_repl_slot THEN RAISE 'the stand-in drops no slots'; END IF;
  EXECUTE format('ALTER SUBSCRIPTION %I DISABLE', arg_subscription_name);
  EXECUTE format('ALTER SUBSCRIPTION %I SET (slot_name = NONE)', arg_subscription_name);
  EXECUTE format('DROP SUBSCRIPTION %I', arg_subscription_name);
END $$;

CREATE FUNCTION aiven_extras.dblink_record_execute(text, text) RETURNS SETOF record
LANGUAGE c PARALLEL RESTRICTED STRICT AS '$libdir/dblink', 'dblink_record';
`;

/**
 * A copy of a PostgreSQL that has the extension. `trusted`: an ordinary role may create it, as extwlist allows on the
 * servers that really have it; else a superuser has to.
 */
export function withAivenExtras(major: number, trusted: boolean): { binDir: string; remove: () => void } {
  const home = makeServerDir(path.join(workDir(), `pg${major}-extras-`));
  const install = path.join(home, 'install');
  mkdirSync(install);
  cpSync(path.join(pgBin(major), '..'), install, { recursive: true, verbatimSymlinks: true });
  const extensions = path.join(install, 'share', 'extension');
  const control = `comment = 'stand-in'\ndefault_version = '1.1.18'\nrelocatable = false\nschema = 'aiven_extras'\n`;
  writeFileSync(path.join(extensions, 'aiven_extras.control'), `${control}trusted = ${trusted}\n`);
  writeFileSync(path.join(extensions, 'aiven_extras--1.1.18.sql'), FUNCTIONS);
  return { binDir: path.join(install, 'bin'), remove: () => rmSync(home, { recursive: true }) };
}
