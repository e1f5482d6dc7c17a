import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import process from 'node:process';
import { packageRoot } from '../../package-root.ts';
import type { ProgramName } from '../../postgres/programs.ts';
import { findProgram, listPrograms } from '../../postgres/programs.ts';
import { temporalCliPath } from '../../temporal/cli-path.ts';
import { configuredTarget, messageOf } from '../../temporal/connection.ts';
import { cliVersion } from '../../temporal/dev-server.ts';
import type { Check } from './check.ts';
import { check } from './check.ts';

/** `server_version_num` of the servers that were reached. */
export interface Versions {
  source: number | null;
  target: number | null;
}

export const checkMachine = async (env: NodeJS.ProcessEnv, versions: Versions): Promise<Check[]> => [
  nodeVersion(),
  await clientProgram('pg_dump', env, versions),
  await clientProgram('pg_restore', env, versions),
  await temporalCli(env),
];

function nodeVersion(): Check {
  const { engines } = JSON.parse(readFileSync(join(packageRoot(), 'package.json'), 'utf8')) as {
    engines: { node: string };
  };
  const wanted = engines.node.replace('>=', '');
  const found = process.versions.node;
  return isAtLeast(found, wanted)
    ? check('Node', 'ok', found)
    : check('Node', 'problem', `${found} is too old.`, `Install Node ${wanted} or later.`);
}

export function isAtLeast(found: string, wanted: string): boolean {
  return found.localeCompare(wanted, 'en', { numeric: true }) >= 0;
}

async function clientProgram(name: ProgramName, env: NodeJS.ProcessEnv, { source, target }: Versions): Promise<Check> {
  const found = await listPrograms(name, env);
  const list = found.map(({ major, path }) => `${major} (${path})`).join(', ');
  const install =
    "Install the client programs of PostgreSQL, of the target's version, or name their directory in PGTRANSIT_PG_BIN.";
  const known = target ?? source;
  if (known === null)
    return list === ''
      ? check(name, 'problem', 'There is none on this machine.', install)
      : check(name, 'ok', `Of version ${list}.`);
  try {
    const wish = { sourceVersion: source ?? known, targetVersion: known };
    const { major, path } = await findProgram(name, wish, env);
    return check(name, 'ok', `Of version ${list}; these servers take ${major}, ${path}.`);
  } catch (error) {
    return check(name, 'problem', messageOf(error), install);
  }
}

async function temporalCli(env: NodeJS.ProcessEnv): Promise<Check> {
  const what = 'Temporal CLI';
  try {
    const path = temporalCliPath(env);
    return check(what, 'ok', `${await cliVersion(path)} (${path})`);
  } catch (error) {
    const needed = isConfigured(env) ? 'warning' : 'problem';
    return check(what, needed, messageOf(error), 'It is needed only for a Temporal server of our own.');
  }
}

/** A configuration that cannot be read is told where Temporal is looked at. */
function isConfigured(env: NodeJS.ProcessEnv): boolean {
  try {
    return configuredTarget(env) !== null;
  } catch {
    return true;
  }
}
