import type { Endpoint } from './connection.ts';
import { pinnedSettings } from './connection.ts';

/** libpq's environment variables (manual, 34.15) for what a connection string may hold. */
const VARIABLES: Readonly<Record<string, string>> = {
  host: 'PGHOST',
  hostaddr: 'PGHOSTADDR',
  port: 'PGPORT',
  user: 'PGUSER',
  password: 'PGPASSWORD',
  passfile: 'PGPASSFILE',
  channel_binding: 'PGCHANNELBINDING',
  connect_timeout: 'PGCONNECT_TIMEOUT',
  sslmode: 'PGSSLMODE',
  sslcert: 'PGSSLCERT',
  sslkey: 'PGSSLKEY',
  sslrootcert: 'PGSSLROOTCERT',
  sslcrl: 'PGSSLCRL',
  sslcrldir: 'PGSSLCRLDIR',
  sslsni: 'PGSSLSNI',
  sslnegotiation: 'PGSSLNEGOTIATION',
  ssl_min_protocol_version: 'PGSSLMINPROTOCOLVERSION',
  ssl_max_protocol_version: 'PGSSLMAXPROTOCOLVERSION',
  gssencmode: 'PGGSSENCMODE',
  krbsrvname: 'PGKRBSRVNAME',
  target_session_attrs: 'PGTARGETSESSIONATTRS',
  load_balance_hosts: 'PGLOADBALANCEHOSTS',
  require_auth: 'PGREQUIREAUTH',
};

/** Only a superuser may set it, and a refused setting refuses the connection. */
const NOT_FOR_EVERYBODY = 'session_replication_role';

/**
 * The environment in which a client program reaches the same server as our own sessions do, with the same settings.
 * A password travels here and nowhere else: arguments are visible to every user of the machine.
 */
export function programEnvironment(
  { info }: Endpoint,
  { database, version, applicationName }: { database: string; version: number; applicationName: string },
): NodeJS.ProcessEnv {
  const env: NodeJS.ProcessEnv = { ...process.env, PGDATABASE: database, PGAPPNAME: applicationName };
  // What our own sessions do not read from the environment must not send the program elsewhere.
  for (const variable of ['PGSERVICE', 'PGHOSTADDR', 'PGPORT', 'PGTARGETSESSIONATTRS']) delete env[variable];
  for (const [key, variable] of Object.entries(VARIABLES)) if (info[key] !== undefined) env[variable] = info[key];
  const settings = Object.entries(pinnedSettings(version)).filter(([name]) => name !== NOT_FOR_EVERYBODY);
  const ours = settings.map(([name, value]) => `-c ${name}=${value.replace(/[\\\s]/g, '\\$&')}`);
  env['PGOPTIONS'] = [info['options'], ...ours].filter((part) => part !== undefined).join(' ');
  return env;
}
