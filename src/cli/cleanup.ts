import process from 'node:process';
import type { Client } from '@temporalio/client';
import type { Command } from 'commander';
import { WORKFLOW } from '../contract.ts';
import { migrationId } from '../domain/migration-id.ts';
import type { Endpoint, Session } from '../postgres/connection.ts';
import { connect } from '../postgres/connection.ts';
import { resolveReference } from '../postgres/conninfo.ts';
import { isFenced, liftFence } from '../postgres/fence.ts';
import { dropOwnLedger, isOwnLedger, undoOnSource, undoOnTarget } from '../postgres/undo.ts';
import { messageOf } from '../temporal/connection.ts';
import type { Secrets } from '../temporal/secrets.ts';
import type { SessionFlags } from './command-session.ts';
import { print, sessionCommand, withTemporal } from './command-session.ts';
import type { Leftover } from './leftovers.ts';
import { leftoversInDatabase, sharedLeftovers } from './leftovers.ts';
import { readServers } from './pg-servers.ts';
import { table } from './view/text.ts';

const HELP = `
Everything that a migration makes on a server bears its id. What belongs to a migration that is still open is listed and
left alone: cancel that instead. Databases on the target are kept.

Example:
  pgtransit cleanup -s "$OLD" -t "$NEW"          look first
  pgtransit cleanup -s "$OLD" -t "$NEW" --yes    drop it`;

interface Flags extends SessionFlags {
  source?: string;
  target?: string;
  yes?: boolean;
  force?: boolean;
}

export const cleanupCommand = (secrets: Secrets): Command =>
  sessionCommand('cleanup', 'find and drop what a terminated migration left on the servers')
    .option('-s, --source <uri>', 'source server (else SOURCE_SERVICE_URI)')
    .option('-t, --target <uri>', 'target server (else TARGET_SERVICE_URI)')
    .option('--yes', 'drop what is listed')
    .option('--force', 'also what belongs to a migration that is open')
    .addHelpText('after', HELP)
    .action((flags: Flags) => {
      const servers = readServers(flags, process.env);
      const endpointOf = (server: 'source' | 'target'): Endpoint => {
        const info = resolveReference(servers[server].text, process.env);
        secrets.addConnInfo(info);
        return { server, info };
      };
      const endpoints = { source: endpointOf('source'), target: endpointOf('target') };
      return withTemporal(flags, secrets, async ({ client }) => {
        const open = await openIds(client);
        const found = (await Promise.all([look(endpoints.source), look(endpoints.target)])).flat();
        const mayGo = ({ id }: Leftover) => flags.force === true || !open.has(id);
        print(flags, render(found, open), found);
        if (flags.yes !== true) return found.length === 0 ? 0 : 1;
        const problems = await drop(endpoints, found.filter(mayGo));
        for (const problem of problems) process.stderr.write(`${secrets.mask(problem)}\n`);
        return problems.length === 0 && found.every(mayGo) ? 0 : 1;
      });
    });

/** Ids of the migrations of single databases that have not ended. */
async function openIds(client: Client): Promise<Map<string, string>> {
  const ids = new Map<string, string>();
  const query = `WorkflowType = '${WORKFLOW.migrateDatabase}' AND ExecutionStatus = 'Running'`;
  for await (const { workflowId } of client.workflow.list({ query })) {
    const { raw } = await client.workflow.getHandle(workflowId).describe();
    ids.set(migrationId(workflowId, raw.workflowExecutionInfo?.firstRunId ?? ''), workflowId);
  }
  return ids;
}

async function withSession<T>(
  endpoint: Endpoint,
  database: string | null,
  work: (s: Session) => Promise<T>,
): Promise<T> {
  const session = await connect(endpoint, {
    applicationName: 'pgtransit_cleanup',
    ...(database !== null && { database }),
  });
  try {
    return await work(session);
  } finally {
    await session.close();
  }
}

async function look(endpoint: Endpoint): Promise<Leftover[]> {
  const { shared, databases } = await withSession(endpoint, null, async (session) => ({
    shared: await sharedLeftovers(session),
    databases: await session.query<{ name: string }>(
      `SELECT datname AS name FROM pg_database WHERE datallowconn AND NOT datistemplate AND has_database_privilege(oid, 'CONNECT') ORDER BY 1`,
    ),
  }));
  const found = [...shared];
  for (const { name } of databases) found.push(...(await withSession(endpoint, name, leftoversInDatabase)));
  return found;
}

function render(found: readonly Leftover[], open: ReadonlyMap<string, string>): string {
  if (found.length === 0) return 'Nothing of pgtransit is on these servers.';
  const rows = found.map(({ id, server, database, what }) => {
    const workflow = open.get(id);
    return [id, server, database, what, workflow === undefined ? 'left over' : `in use by ${workflow}`];
  });
  return table(['MIGRATION', 'SERVER', 'DATABASE', 'WHAT', ''], rows);
}

/** Each database of each migration by itself: one that fails does not keep the others from being cleaned. */
async function drop(endpoints: Record<'source' | 'target', Endpoint>, found: readonly Leftover[]): Promise<string[]> {
  const problems: string[] = [];
  const owners = new Map(found.map(({ id, database }) => [`${id} ${database}`, { id, database }]));
  for (const owner of owners.values()) {
    try {
      await dropOne(endpoints, owner);
      process.stderr.write(`Dropped what migration ${owner.id} left of database ${owner.database}.\n`);
    } catch (error) {
      problems.push(`Migration ${owner.id}, database ${owner.database}: ${messageOf(error)}`);
    }
  }
  return problems;
}

async function dropOne(
  { source: from, target: to }: Record<'source' | 'target', Endpoint>,
  owner: { id: string; database: string },
): Promise<void> {
  await withSession(from, owner.database, async (source) => {
    if (!(await withSession(to, null, (session) => exists(session, owner.database))))
      return undoOnSource(source, owner);
    await withSession(to, owner.database, async (target) => {
      await undoOnTarget(target, owner);
      if ((await isOwnLedger(target, owner.id)) && (await isFenced(target))) await liftFence(source, target);
      await undoOnSource(source, owner);
      await dropOwnLedger(target, owner.id);
    });
  });
}

const exists = async (session: Session, database: string): Promise<boolean> =>
  (await session.query('SELECT FROM pg_database WHERE datname = $1', [database])).length > 0;
