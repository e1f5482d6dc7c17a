import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import type { Socket } from 'node:net';
import { connect } from 'node:net';
import { join } from 'node:path';
import process from 'node:process';
import { createInterface } from 'node:readline/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { LIMITS } from '../domain/limits.ts';
import { packageRoot } from '../package-root.ts';
import type { Welcome } from './supervisor.ts';
import { lobbyOf } from './supervisor.ts';

export interface LocalServer {
  address: string;
  webUi: string;
  /** Lets go of the server, which ends soon after when nobody else uses it. */
  leave(): void;
}

/**
 * Joins the Temporal server of a state directory, which is started when nobody uses it yet. When its supervisor dies, a
 * new one is started in the background, and takes the same ports.
 * @throws Error with one sentence when the server cannot be started
 */
export async function joinLocalServer(stateDir: string, env: NodeJS.ProcessEnv): Promise<LocalServer> {
  let socket: Socket;
  let left = false;
  const join = async (): Promise<{ address: string; webUi: string }> => {
    const entered = await enter(stateDir, env);
    socket = entered.socket;
    socket.once('close', () => {
      // What fails here is seen by whoever talks to the server.
      if (!left) join().catch(() => undefined);
    });
    return entered.welcome;
  };
  const { address, webUi } = await join();
  const leave = () => {
    left = true;
    socket.destroy();
  };
  return { address, webUi, leave };
}

async function enter(stateDir: string, env: NodeJS.ProcessEnv) {
  const giveUpAt = Date.now() + LIMITS.serverStartMs;
  let supervisor: ReturnType<typeof spawn> | null = null;
  for (; ; await delay(LIMITS.pollMs / 5)) {
    const entered = await knock(stateDir);
    if (entered !== null) return entered;
    if (Date.now() > giveUpAt)
      throw new Error(`pgtransit's own Temporal server does not answer; see ${join(stateDir, 'supervisor.log')}.`);
    if (supervisor === null || supervisor.exitCode !== null) supervisor = startSupervisor(stateDir, env);
  }
}

/** Null: nobody is there, or it is just leaving. @throws Error with the supervisor's sentence */
async function knock(stateDir: string) {
  const socket = connect(lobbyOf(stateDir));
  try {
    await once(socket, 'connect');
    for await (const line of createInterface({ input: socket })) {
      const welcome = JSON.parse(line) as Welcome;
      if ('problem' in welcome) throw new Problem(welcome.problem);
      socket.on('error', () => undefined).resume();
      return { socket, welcome };
    }
  } catch (error) {
    socket.destroy();
    if (error instanceof Problem) throw error;
  }
  return null;
}

class Problem extends Error {}

function startSupervisor(stateDir: string, env: NodeJS.ProcessEnv) {
  const log = openSync(join(stateDir, 'supervisor.log'), 'a', 0o600);
  const program = join(packageRoot(), 'dist', 'src', 'temporal', 'supervisor-main.js');
  const child = spawn(process.execPath, [program, stateDir], {
    cwd: stateDir,
    // A session of its own: a Ctrl-C goes to all processes of the terminal's group.
    detached: true,
    stdio: ['ignore', log, log],
    env: withoutSecrets(env),
  });
  closeSync(log);
  child.on('error', () => undefined);
  child.unref();
  return child;
}

/** It needs no connection strings, and lives longer than the process that has them. */
function withoutSecrets(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const needed = ['PATH', 'HOME', 'TMPDIR', 'TEMPORAL_CLI_PATH', 'LANG', 'TZ'];
  return Object.fromEntries(Object.entries(env).filter(([name]) => needed.includes(name)));
}
