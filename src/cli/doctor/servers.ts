import { NAME_PREFIX } from '../../contract.ts';
import { LIMITS } from '../../domain/limits.ts';
import type { Session } from '../../postgres/connection.ts';
import { connect } from '../../postgres/connection.ts';
import { resolveReference } from '../../postgres/conninfo.ts';
import { messageOf } from '../../temporal/connection.ts';
import type { Secrets } from '../../temporal/secrets.ts';
import { readServerIfGiven } from '../pg-servers.ts';
import type { Check } from './check.ts';
import { check } from './check.ts';
import type { Versions } from './machine.ts';

type Name = 'source' | 'target';

export async function checkServers(
  flags: Partial<Record<Name, string>>,
  env: NodeJS.ProcessEnv,
  secrets: Secrets,
): Promise<{ checks: Check[]; versions: Versions }> {
  const versions: Versions = { source: null, target: null };
  const checks: Check[] = [];
  for (const name of ['source', 'target'] as const)
    try {
      const server = readServerIfGiven(name, flags, env);
      if (server === null) continue;
      const info = resolveReference(server.text, env);
      secrets.addConnInfo(info);
      const session = await connect({ server: name, info }, { applicationName: `${NAME_PREFIX}doctor` });
      versions[name] = session.version;
      checks.push(...(await lookAt(name, session).finally(() => session.close())));
    } catch (error) {
      checks.push(check(title(name), 'problem', messageOf(error)));
    }
  return { checks, versions };
}

const title = (name: Name, what = ''): string => `${name === 'source' ? 'Source' : 'Target'}${what}`;

interface Facts {
  version: string;
  role: string;
  superuser: boolean;
  replication: boolean;
  createsDatabases: boolean;
  walLevel: string;
}

async function lookAt(name: Name, session: Session): Promise<Check[]> {
  const facts = await session.one<Facts>(
    `SELECT current_setting('server_version') AS version, rolname AS role, rolsuper AS superuser,
            rolreplication AS replication, rolcreatedb AS "createsDatabases", current_setting('wal_level') AS "walLevel"
       FROM pg_roles WHERE rolname = current_user`,
  );
  const { host = '', port = '5432' } = session.endpoint.info;
  return [
    check(title(name), 'ok', `PostgreSQL ${facts.version} at ${host}:${port}`),
    role(name, facts),
    ...(name === 'source' ? [walLevel(facts)] : []),
    await clock(name, session),
  ];
}

function role(name: Name, { role, superuser, replication, createsDatabases }: Facts): Check {
  const what = title(name, ' role');
  if (superuser) return check(what, 'ok', `${role}, superuser`);
  const attributes = [replication && 'REPLICATION', createsDatabases && 'CREATEDB'].filter(Boolean).join(', ');
  const message = `${role}, no superuser, ${attributes || 'neither REPLICATION nor CREATEDB'}`;
  if (name === 'source' && !replication)
    return check(
      what,
      'warning',
      message,
      `For replication: ALTER ROLE … REPLICATION, or what the provider has instead.`,
    );
  if (name === 'target' && !createsDatabases)
    return check(what, 'warning', message, 'Databases that are not there yet need CREATEDB.');
  return check(what, 'ok', message);
}

const walLevel = ({ walLevel }: Facts): Check =>
  walLevel === 'logical'
    ? check('Source wal_level', 'ok', walLevel)
    : check(
        ...(['Source wal_level', 'warning', `It is ${walLevel}, and replication needs logical.`] as const),
        "ALTER SYSTEM SET wal_level = 'logical'; then restart the source. Without it databases are dumped.",
      );

/** The answer was made somewhere between the question and its arrival. */
async function clock(name: Name, session: Session): Promise<Check> {
  const asked = Date.now();
  const { at } = await session.one<{ at: number }>(
    'SELECT (extract(epoch FROM clock_timestamp()) * 1000)::float8 AS at',
  );
  const difference = at - (asked + Date.now()) / 2;
  const seconds = (Math.abs(difference) / 1000).toFixed(1);
  const message = `${seconds} s ${difference < 0 ? 'behind' : 'ahead of'} this machine's`;
  const what = title(name, ' clock');
  return Math.abs(difference) < LIMITS.clockDifferenceMs
    ? check(what, 'ok', message)
    : check(
        what,
        'warning',
        message,
        'Times in reports and in the logs of the server will not agree; let NTP set both.',
      );
}
