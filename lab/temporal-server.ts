import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Connection } from '@temporalio/client';
import { freePort } from '../src/temporal/free-port.ts';
import { own } from './processes.ts';
import { temporalCliPath } from '../src/temporal/cli-path.ts';
import { workDir } from './tools.ts';

export interface StartTemporalOptions {
  /** Where the server keeps its state (SQLite). Default: in memory, so that a restart forgets everything. */
  dbFile?: string;
  port?: number;
  uiPort?: number;
  /** Of the server's dynamic configuration, e.g. a lower limit. */
  dynamicConfig?: Readonly<Record<string, string>>;
  /** Without the Web UI. Default: true, unless `uiPort` is given. */
  headless?: boolean;
}

/** A development server of this test process; it ends with the process. */
export interface TemporalServer {
  /** host:port of gRPC; the same after a restart. */
  address: string;
  /** URL of the Web UI; undefined when headless. */
  uiAddress: string | undefined;
  namespace: 'default';
  /** Since the latest start. */
  readonly pid: number;
  logFile: string;
  /** Waits until the server answers. Does nothing when it runs. */
  start(): Promise<void>;
  /** SIGTERM; killed if that is not enough. */
  stop(): Promise<void>;
  /** SIGKILL: a crash. */
  kill(): Promise<void>;
}

/** As in src/contract.ts; `temporal server start-dev` registers them before it answers. */
const SEARCH_ATTRIBUTES = ['PgCluster', 'PgDatabase', 'PgMigrationPhase', 'PgAttention'];

/** Usually 2-4 s; much longer on a machine that does other things. */
const START_TIMEOUT_MS = 60_000;

const STOP_TIMEOUT_MS = 10_000;

export async function startTemporalServer(options: StartTemporalOptions = {}): Promise<TemporalServer> {
  const headless = options.headless ?? options.uiPort === undefined;
  const port = options.port ?? (await freePort());
  const uiPort = options.uiPort ?? (await freePort());
  const address = `127.0.0.1:${port}`;
  const logDir = mkdtempSync(path.join(workDir(), 'temporal-'));
  const logFile = path.join(logDir, 'server.log');
  own({ remove: [logDir] });
  const args = [
    ...['server', 'start-dev', '--ip', '127.0.0.1', '--port', String(port), '--log-level', 'warn'],
    ...(headless ? ['--headless'] : ['--ui-port', String(uiPort)]),
    ...(options.dbFile === undefined ? [] : ['--db-filename', options.dbFile]),
    ...Object.entries(options.dynamicConfig ?? {}).flatMap(([key, value]) => [
      '--dynamic-config-value',
      `${key}=${value}`,
    ]),
    ...SEARCH_ATTRIBUTES.flatMap((name) => ['--search-attribute', `${name}=Keyword`]),
  ];

  let child: ChildProcess | undefined;
  let disown = (): void => undefined;

  const end = async (signal: 'SIGTERM' | 'SIGKILL'): Promise<void> => {
    if (child === undefined || hasEnded(child)) return;
    const ended = once(child, 'exit');
    child.kill(signal);
    const timer = setTimeout(() => child?.kill('SIGKILL'), STOP_TIMEOUT_MS);
    await ended;
    clearTimeout(timer);
    disown();
  };

  const start = async (): Promise<void> => {
    if (child !== undefined && !hasEnded(child)) return;
    const log = openSync(logFile, 'a');
    // Detached: a Ctrl-C at the terminal is for the test run, which ends its servers in its own order.
    child = spawn(temporalCliPath(), args, { detached: true, stdio: ['ignore', log, log] });
    closeSync(log);
    child.unref();
    if (child.pid === undefined) await once(child, 'error').then(([error]) => Promise.reject(error as Error));
    else disown = own({ pid: child.pid });
    try {
      await untilReady(child, address);
    } catch (error) {
      await end('SIGKILL');
      const said = readFileSync(logFile, 'utf8').slice(-2000);
      throw new Error(`The Temporal server did not start on ${address}. Its log: ${said}`, { cause: error });
    }
  };

  const server: TemporalServer = {
    address,
    uiAddress: headless ? undefined : `http://127.0.0.1:${uiPort}`,
    namespace: 'default',
    get pid() {
      return child?.pid ?? 0;
    },
    logFile,
    start,
    stop: () => end('SIGTERM'),
    kill: () => end('SIGKILL'),
  };
  try {
    await start();
  } catch (error) {
    rmSync(logDir, { recursive: true, force: true }); // the error has the end of the log
    throw error;
  }
  return server;
}

const hasEnded = (child: ChildProcess): boolean => child.exitCode !== null || child.signalCode !== null;

/** Until the namespace answers: the port listens before that. */
async function untilReady(child: ChildProcess, address: string): Promise<void> {
  const giveUpAt = Date.now() + START_TIMEOUT_MS;
  for (;;) {
    try {
      // Each try is a connection of its own: gRPC waits longer and longer before it tries a refused one again.
      const connection = await Connection.connect({ address, connectTimeout: 1000 });
      try {
        await connection.workflowService.describeNamespace({ namespace: 'default' });
        return;
      } finally {
        await connection.close();
      }
    } catch (error) {
      if (hasEnded(child) || Date.now() > giveUpAt) throw error;
      await delay(100);
    }
  }
}
