import type { Endpoint } from './connection.ts';
import { PARAMETERS } from './libpq-parameters.ts';
import { pinnedSettings } from './session-settings.ts';

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
  const env: NodeJS.ProcessEnv = { ...process.env };
  // What our own sessions took from the environment is in `info`; the rest must not send the program elsewhere.
  for (const [key, variable] of Object.entries(PARAMETERS)) {
    if (variable === null) continue;
    delete env[variable];
    if (info[key] !== undefined) env[variable] = info[key];
  }
  const settings = Object.entries(pinnedSettings(version)).filter(([name]) => name !== NOT_FOR_EVERYBODY);
  const ours = settings.map(([name, value]) => `-c ${name}=${value.replace(/[\\\s]/g, '\\$&')}`);
  const options = [info['options'], ...ours].filter((part) => part !== undefined).join(' ');
  return { ...env, PGDATABASE: database, PGAPPNAME: applicationName, PGOPTIONS: options };
}
