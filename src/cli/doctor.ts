import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import process from 'node:process';
import type { Command } from 'commander';
import { DEFAULT_TASK_QUEUE, SEARCH_ATTRIBUTE } from '../contract.ts';
import { packageRoot } from '../package-root.ts';
import type { Session } from '../postgres/connection.ts';
import { connect } from '../postgres/connection.ts';
import { resolveReference } from '../postgres/conninfo.ts';
import { findProgram } from '../postgres/programs.ts';
import { temporalCliPath } from '../temporal/cli-path.ts';
import { configuredTarget, messageOf } from '../temporal/connection.ts';
import { cliVersion } from '../temporal/dev-server.ts';
import { ensureSearchAttributes } from '../temporal/search-attributes.ts';
import type { Secrets } from '../temporal/secrets.ts';
import { isPolled, openTemporal } from '../temporal/session.ts';
import { stateDirectory } from '../temporal/state-dir.ts';
import type { SessionFlags } from './command-session.ts';
import { print, sessionCommand } from './command-session.ts';
import { logOf } from './process-log.ts';
import { plain, table } from './view/text.ts';

/** One thing that was looked at. `unknown`: it could not be looked at, e.g. since it is not named. */
interface Diagnosis {
  what: string;
  state: 'ok' | 'warning' | 'problem' | 'unknown';
  /** What was seen, and what to do where it is not ok. */
  message: string;
}

interface Flags extends SessionFlags {
  source?: string;
  target?: string;
}

const HELP = `
Looks at this machine's programs, the Temporal server that the commands use, and both servers where they are named. It
changes nothing but the search attributes of the Temporal server, which a worker registers too. What a migration would
need of the databases is checked by \`pgtransit pg --validate\`.`;

export const doctorCommand = (secrets: Secrets): Command =>
  sessionCommand('doctor', 'look at what pgtransit needs on this machine, and say what to do')
    .option('-s, --source <uri>', 'source server (else SOURCE_SERVICE_URI)')
    .option('-t, --target <uri>', 'target server (else TARGET_SERVICE_URI)')
    .addHelpText('after', HELP)
    .action(async (flags: Flags) => {
      const found = [node(), ...(await temporal(flags, secrets)), ...(await servers(flags, secrets))];
      const safe = found.map((diagnosis) => ({ ...diagnosis, message: secrets.mask(plain(diagnosis.message)) }));
      const rows = safe.map(({ state, what, message }) => [state, what, message]);
      print(flags, table(['STATE', 'WHAT', 'SEEN'], rows), safe);
      process.exitCode = safe.some(({ state }) => state === 'problem') ? 1 : 0;
    });

/** `look` throws a sentence when something is wrong. */
async function diagnose(what: string, look: () => string | Promise<string>): Promise<Diagnosis> {
  try {
    return { what, state: 'ok', message: await look() };
  } catch (error) {
    return { what, state: 'problem', message: messageOf(error) };
  }
}

function node(): Diagnosis {
  const file = readFileSync(join(packageRoot(), 'package.json'), 'utf8');
  const wanted = (JSON.parse(file) as { engines: { node: string } }).engines.node;
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  const [leastMajor = 0, leastMinor = 0] = wanted.replace('>=', '').split('.').map(Number);
  const isNew = major > leastMajor || (major === leastMajor && minor >= leastMinor);
  const message = `${process.version}; ${wanted} is needed`;
  return {
    what: 'Node',
    state: isNew ? 'ok' : 'problem',
    message: isNew ? message : `${message}. Install a newer one.`,
  };
}

async function temporal(flags: Flags, secrets: Secrets): Promise<Diagnosis[]> {
  const directory = () => stateDirectory(process.env, flags.stateDir ?? null);
  const found: Diagnosis[] = [];
  if (configuredTarget(process.env) === null)
    found.push(
      await diagnose('Temporal CLI', async () => {
        const cli = temporalCliPath();
        return `${await cliVersion(cli)}, ${cli}`;
      }),
    );
  logOf(process.env['PGTRANSIT_DEBUG'] === '1', secrets, directory);
  try {
    const session = await openTemporal(process.env, directory);
    const { connection, target, kind, webUi } = session;
    const own = kind === 'local' ? `pgtransit's own at ${target.address}, Web UI ${webUi ?? ''}` : target.address;
    found.push({ what: 'Temporal server', state: 'ok', message: `${own}, namespace ${target.namespace}` });
    const attributes = await ensureSearchAttributes(connection, target.namespace);
    found.push({
      what: `search attributes ${Object.values(SEARCH_ATTRIBUTE).join(', ')}`,
      state: attributes.registered ? 'ok' : 'warning',
      message: attributes.message,
    });
    if (kind === 'configured') found.push(await workers(session));
    await session.close();
  } catch (error) {
    found.push({ what: 'Temporal server', state: 'problem', message: messageOf(error) });
  }
  return found;
}

async function workers(session: Parameters<typeof isPolled>[0]): Promise<Diagnosis> {
  const taskQueue = process.env['PGTRANSIT_TASK_QUEUE'] || DEFAULT_TASK_QUEUE;
  const isServed = await isPolled(session, taskQueue, 'steps');
  return isServed
    ? { what: 'workers', state: 'ok', message: `some worker serves task queue ${taskQueue}` }
    : {
        what: 'workers',
        state: 'warning',
        message: `no worker serves task queue ${taskQueue}: run \`pgtransit worker\`, unless you use \`pgtransit pg\` only`,
      };
}

async function servers(flags: Flags, secrets: Secrets): Promise<Diagnosis[]> {
  const texts = {
    source: flags.source ?? process.env['SOURCE_SERVICE_URI'] ?? '',
    target: flags.target ?? process.env['TARGET_SERVICE_URI'] ?? '',
  };
  const versions: Partial<Record<'source' | 'target', number>> = {};
  const found: Diagnosis[] = [];
  for (const server of ['source', 'target'] as const) {
    if (texts[server] === '') {
      const message = `not named: give ${server === 'source' ? '-s or SOURCE' : '-t or TARGET'}_SERVICE_URI`;
      found.push({ what: server, state: 'unknown', message });
      continue;
    }
    found.push(
      await diagnose(server, async () => {
        const info = resolveReference(texts[server], process.env);
        secrets.addConnInfo(info);
        const session = await connect({ server, info }, { applicationName: 'pgtransit_doctor' });
        try {
          versions[server] = session.version;
          return await describe(session);
        } finally {
          await session.close();
        }
      }),
    );
  }
  const { source, target } = versions;
  if (source === undefined || target === undefined) return found;
  for (const name of ['pg_dump', 'pg_restore'] as const)
    found.push(
      await diagnose(name, async () => {
        const { path, major } = await findProgram(name, { sourceVersion: source, targetVersion: target });
        return `version ${major}, ${path}`;
      }),
    );
  return found;
}

async function describe(session: Session): Promise<string> {
  const row = await session.one<{ version: string; role: string; rights: string; level: string; ahead: number }>(
    `SELECT current_setting('server_version') AS version, current_user::text AS role,
            concat_ws(', ', CASE WHEN rolsuper THEN 'superuser' END, CASE WHEN rolreplication THEN 'REPLICATION' END,
              CASE WHEN rolcreatedb THEN 'CREATEDB' END, CASE WHEN rolcreaterole THEN 'CREATEROLE' END) AS rights,
            current_setting('wal_level') AS level,
            (extract(epoch FROM clock_timestamp()) - $1::float8)::float8 AS ahead
       FROM pg_roles WHERE rolname = current_user`,
    [Date.now() / 1000],
  );
  const { version, role, rights, level, ahead } = row;
  const clock =
    Math.abs(ahead) < 1 ? '' : `, its clock is ${Math.abs(ahead).toFixed(0)} s ${ahead > 0 ? 'ahead' : 'behind'}`;
  return `PostgreSQL ${version}, role ${role} (${rights || 'no special rights'}), wal_level ${level}${clock}`;
}
