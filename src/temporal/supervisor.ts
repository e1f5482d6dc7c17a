import { createHash } from 'node:crypto';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { createServer } from 'node:net';
import process from 'node:process';
import { setTimeout as delay } from 'node:timers/promises';
import { LIMITS } from '../domain/limits.ts';
import { temporalCliPath } from './cli-path.ts';
import type { DevServer } from './dev-server.ts';
import { cliVersion, openMigrations, startDevServer } from './dev-server.ts';
import { canListen, freePort } from './free-port.ts';
import type { ServerState } from './server-state.ts';
import { readServerState, startOfProcess, writeServerState } from './server-state.ts';

/** What the supervisor says to each process that connects, as one line of JSON. */
export type Welcome = { address: string; webUi: string } | { problem: string };

/**
 * The supervisor's socket: one a state directory, in Linux's abstract namespace, so that it is gone with its process
 * and nothing has to be cleaned up. Whoever is connected to it keeps the server alive.
 */
export const lobbyOf = (stateDir: string): string =>
  `\0pgtransit-${createHash('sha256').update(stateDir).digest('hex').slice(0, 32)}`;

/**
 * Runs the Temporal server of a state directory as long as some pgtransit process is connected to the lobby. A process
 * of its own, so that neither a Ctrl-C at a terminal nor the end of the process that started it ends it for the others.
 */
export async function supervise(stateDir: string): Promise<void> {
  const lobby = createServer();
  const guests = new Set<Socket>();
  let welcome: Welcome | null = null;
  let greeted = 0;
  const greet = (guest: Socket) => {
    greeted += 1;
    guest.write(`${JSON.stringify(welcome)}\n`);
  };
  lobby.on('connection', (guest) => {
    guests.add(guest);
    guest.on('error', () => undefined).on('close', () => guests.delete(guest));
    guest.resume();
    if (welcome !== null) greet(guest);
  });
  lobby.listen(lobbyOf(stateDir));
  try {
    await once(lobby, 'listening');
  } catch {
    return; // another one was first, and serves all
  }
  const say = (news: Welcome | null) => {
    welcome = news;
    if (news !== null) for (const guest of guests) greet(guest);
  };
  try {
    await serve(stateDir, () => guests.size > 0, say);
  } catch (error) {
    say({ problem: error instanceof Error ? error.message : String(error) });
    // Whoever started this process is about to knock, and leaves when it has read why.
    const goneAt = Date.now() + LIMITS.serverIdleMs;
    while (Date.now() < goneAt && (greeted === 0 || guests.size > 0)) await delay(LIMITS.pollMs / 10);
  }
  lobby.close();
}

/** `say(null)`: whoever comes from now on waits for the next supervisor. */
async function serve(stateDir: string, isWanted: () => boolean, say: (news: Welcome | null) => void): Promise<void> {
  const cli = temporalCliPath();
  const version = await cliVersion(cli);
  const before = readServerState(stateDir);
  if (before !== null) {
    await endOrphan(before);
    requireSameFormat(stateDir, before, version);
  }
  const ports = { port: await portFor(before?.port), uiPort: await portFor(before?.uiPort) };
  const webUi = `http://127.0.0.1:${ports.uiPort}`;
  const begin = async (): Promise<DevServer> => {
    const server = await startDevServer(cli, stateDir, ports);
    const pid = server.child.pid ?? 0;
    writeServerState(stateDir, { cliVersion: version, ...ports, pid, started: startOfProcess(pid), open: null });
    return server;
  };
  let server = await begin();
  say({ address: server.address, webUi });
  for (let idleSince: number | null = null; ; await delay(LIMITS.pollMs)) {
    // Killed by somebody: its workflows are in the file, and its users reconnect to the same ports.
    if (hasEnded(server)) server = await begin();
    idleSince = isWanted() ? null : (idleSince ?? Date.now());
    if (idleSince !== null && Date.now() - idleSince > LIMITS.serverIdleMs) break;
  }
  say(null);
  const open = await openMigrations(server.address).catch(() => null);
  await end(server);
  writeServerState(stateDir, { cliVersion: version, ...ports, pid: 0, started: null, open });
}

const hasEnded = ({ child }: DevServer): boolean => child.exitCode !== null || child.signalCode !== null;

async function end(server: DevServer): Promise<void> {
  if (hasEnded(server)) return;
  const ended = once(server.child, 'exit');
  server.child.kill('SIGTERM');
  const timer = setTimeout(() => server.child.kill('SIGKILL'), LIMITS.serverStopMs);
  await ended;
  clearTimeout(timer);
}

/** A server whose supervisor was killed: two of them on one file would spoil it. */
async function endOrphan({ pid, started }: ServerState): Promise<void> {
  const isThere = () => started !== null && startOfProcess(pid) === started;
  for (const killAt = Date.now() + LIMITS.serverStopMs; isThere(); await delay(LIMITS.pollMs / 5))
    process.kill(pid, Date.now() < killAt ? 'SIGTERM' : 'SIGKILL');
}

function requireSameFormat(stateDir: string, { cliVersion: known, open }: ServerState, version: string): void {
  if (known === version || open?.length === 0) return;
  const what = open === null ? 'may hold a migration that is not finished' : `holds ${open.join(', ')}, not finished`;
  throw new Error(
    `${stateDir} was written by ${known} and ${what}, but the Temporal CLI here is ${version}, which may not be able ` +
      `to read it. Finish with ${known} (TEMPORAL_CLI_PATH names the program), or begin in another --state-dir.`,
  );
}

/** The same as before where that is free: bookmarks of the Web UI go on working. */
const portFor = async (before: number | undefined): Promise<number> =>
  before !== undefined && (await canListen(before)) ? before : freePort();
