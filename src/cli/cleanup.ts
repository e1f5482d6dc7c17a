import process from 'node:process';
import type { Command } from 'commander';
import type { Endpoint } from '../postgres/connection.ts';
import { resolveReference } from '../postgres/conninfo.ts';
import { messageOf } from '../temporal/connection.ts';
import type { Secrets } from '../temporal/secrets.ts';
import { openTemporal } from '../temporal/session.ts';
import { stateDirectory } from '../temporal/state-dir.ts';
import type { SessionFlags } from './command-session.ts';
import { print, sessionCommand } from './command-session.ts';
import type { Openness } from './openness.ts';
import { askOpenness } from './openness.ts';
import { readServers } from './pg-servers.ts';
import { logOf } from './process-log.ts';
import type { Endpoints, Found } from './server-leftovers.ts';
import { drop, searchServers } from './server-leftovers.ts';
import { plain, table } from './view/text.ts';

const HELP = `
What a migration made goes away when it ends or is cancelled. One that was terminated leaves it: slots that keep WAL on
the source, above all. Databases on the target, and what was copied into them, are kept.

What belongs to a migration that is open is left alone, and so is what Temporal cannot be asked about.

Examples:
  pgtransit cleanup -s postgres://app@old.example/app -t postgres://app@new.example/app
  pgtransit cleanup --yes                             with SOURCE_SERVICE_URI and TARGET_SERVICE_URI
  pgtransit cleanup 0123456789ab --yes --force        this one, whatever Temporal says`;

interface CleanupFlags extends SessionFlags {
  source?: string;
  target?: string;
  yes?: boolean;
  force?: boolean;
}

export const cleanupCommand = (secrets: Secrets): Command =>
  sessionCommand('cleanup', 'find what terminated migrations left on both servers, and drop it')
    .argument('[id]', 'only this one: its 12 hex digits or its workflow id')
    .option('-s, --source <uri>', 'source server (else SOURCE_SERVICE_URI)')
    .option('-t, --target <uri>', 'target server (else TARGET_SERVICE_URI)')
    .option('--yes', 'drop it; without this it is only listed')
    .option('--force', 'also what belongs to migrations that are open, or that Temporal does not know')
    .addHelpText('after', HELP)
    .action(async (id: string | undefined, flags: CleanupFlags) => {
      process.exitCode = await cleanup(id ?? null, flags, secrets);
    });

/** What one migration left, and what became of it. */
interface Group extends Openness {
  /** null: nobody knows whose it is. */
  id: string | null;
  found: (Found & { result: 'there' | 'dropped' | 'left' })[];
}

async function cleanup(wanted: string | null, flags: CleanupFlags, secrets: Secrets): Promise<number> {
  const endpoints = readEndpoints(flags, secrets);
  const { found, unseen } = await searchServers(endpoints);
  for (const place of unseen) say(secrets, `Not searched: ${place}`);
  const all = await group(found, flags, secrets);
  const groups = all.filter(({ id, workflowId }) => wanted === null || wanted === id || wanted === workflowId);
  if (flags.yes === true) {
    for (const one of groups) if (mayDrop(one, flags)) await dropGroup(endpoints, one, secrets);
    await lookAgain(
      endpoints,
      groups.filter((one) => mayDrop(one, flags)),
    );
  }
  print(flags, render(groups, flags), { migrations: groups, unseen: unseen.map((place) => secrets.mask(place)) });
  // An open migration needs what it has there.
  const isLeft = groups.some(
    ({ state, found }) => state !== 'open' && found.some(({ result }) => result !== 'dropped'),
  );
  const failed = groups.some(({ found }) => found.some(({ result }) => result === 'left'));
  return flags.yes === true && (isLeft || failed || unseen.length > 0) ? 1 : 0;
}

const say = (secrets: Secrets, sentence: string): void =>
  void process.stderr.write(`${plain(secrets.mask(sentence))}\n`);

function readEndpoints(flags: CleanupFlags, secrets: Secrets): Endpoints {
  const servers = readServers(flags, process.env);
  const endpoint = (server: 'source' | 'target'): Endpoint => {
    const info = resolveReference(servers[server].text, process.env);
    secrets.addConnInfo(info);
    return { server, info };
  };
  return { source: endpoint('source'), target: endpoint('target') };
}

/** By migration. Temporal is asked after the servers: whatever was found there had a workflow before. */
async function group(found: readonly Found[], flags: CleanupFlags, secrets: Secrets): Promise<Group[]> {
  const ledgers = new Map<string, string | null>();
  for (const { id, workflowId } of found) if (id !== null) ledgers.set(id, workflowId ?? ledgers.get(id) ?? null);
  const answers = ledgers.size === 0 ? new Map<string, Openness>() : await askTemporal(ledgers, flags, secrets);
  return [...new Set(found.map(({ id }) => id))].map((id) => ({
    id,
    ...(answers.get(id ?? '') ?? { state: 'unknown', workflowId: null, text: 'It does not say whose it is.' }),
    found: found.filter((one) => one.id === id).map((one) => ({ ...one, result: 'there' })),
  }));
}

async function askTemporal(ledgers: ReadonlyMap<string, string | null>, flags: CleanupFlags, secrets: Secrets) {
  const directory = () => stateDirectory(process.env, flags.stateDir ?? null);
  logOf(process.env['PGTRANSIT_DEBUG'] === '1', secrets, directory);
  try {
    const session = await openTemporal(process.env, directory);
    try {
      return await askOpenness(session.client, ledgers);
    } finally {
      await session.close();
    }
  } catch (error) {
    const text = `Temporal cannot be asked: ${messageOf(error)}`;
    return new Map(
      [...ledgers].map(([id, workflowId]): [string, Openness] => [id, { state: 'unknown', workflowId, text }]),
    );
  }
}

/** A schema that does not say that it is ours may be anybody's. */
const mayDrop = ({ id, state }: Group, { force }: CleanupFlags): boolean =>
  id !== null && (state === 'ended' || force === true);

async function dropGroup(endpoints: Endpoints, { found }: Group, secrets: Secrets): Promise<void> {
  let failed = false;
  for (const one of found) {
    // It says whose the rest is, and what the fence has to put back.
    if (one.kind === 'schema' && failed) {
      say(secrets, `left: ${nameOf(one)}, until the rest is gone`);
      continue;
    }
    try {
      await drop(endpoints, one);
      say(secrets, `${one.kind === 'session' ? 'ended' : one.kind === 'fence' ? 'lifted' : 'dropped'}: ${nameOf(one)}`);
    } catch (error) {
      failed = true;
      say(secrets, `left: ${nameOf(one)}: ${messageOf(error)}`);
    }
  }
}

const nameOf = ({ kind, name, server, database }: Found): string => `${kind} ${name} of ${database} on the ${server}`;

/** What counts is what is there: somebody else may have dropped it, and a worker that still runs may have made it again. */
async function lookAgain(endpoints: Endpoints, groups: readonly Group[]): Promise<void> {
  const { found } = await searchServers(endpoints);
  for (const one of groups) {
    const left = found.filter(({ id }) => id === one.id);
    const isLeft = (known: Found) => left.some((now) => keyOf(now) === keyOf(known));
    const before = new Set(one.found.map(keyOf));
    one.found = [
      ...one.found.map((known) => ({ ...known, result: isLeft(known) ? ('left' as const) : ('dropped' as const) })),
      ...left.filter((now) => !before.has(keyOf(now))).map((now) => ({ ...now, result: 'left' as const })),
    ];
  }
}

const keyOf = ({ kind, name, server, database, pid }: Found): string =>
  JSON.stringify([kind, name, server, database, kind === 'session' ? pid : null]);

function render(groups: readonly Group[], flags: CleanupFlags): string {
  if (groups.length === 0) return 'Nothing of pgtransit is on either server.';
  const blocks = groups.map(({ id, workflowId, text, found }) => {
    const rows = found.map(({ result, kind, name, server, database, pid }) => [
      ...[flags.yes === true ? result : '', server, database, kind, pid === null ? name : `${name} (pid ${pid})`],
    ]);
    return `${id ?? 'nobody'}  ${plain(workflowId ?? '')}\n${plain(text)}\n${table(['', 'SERVER', 'DATABASE', 'WHAT', 'NAME'], rows)}`;
  });
  return [...blocks, advice(groups, flags)].filter((block) => block !== '').join('\n\n');
}

function advice(groups: readonly Group[], flags: CleanupFlags): string {
  if (flags.yes !== true)
    return 'Nothing was dropped. The same command with --yes drops what belongs to ended migrations.';
  const kept = groups.filter((one) => one.state === 'unknown' && !mayDrop(one, flags) && one.id !== null);
  if (kept.length === 0) return '';
  return (
    'What Temporal does not know was left alone. Ask the server that it ran on (TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, ' +
    `--state-dir); or, where you know that it has ended: pgtransit cleanup ${kept[0]?.id ?? ''} --yes --force`
  );
}
