import { appendFileSync, existsSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { freePort } from '../src/temporal/free-port.ts';
import { cleanEnv, postgresAccess, type PostgresAccess } from './postgres-access.ts';
import { makeCluster, makeServerDir } from './postgres-template.ts';
import { own } from './processes.ts';
import { runProgram } from './run-program.ts';
import { workDir } from './tools.ts';

export interface StartPostgresOptions {
  major: number;
  /** Default: what `.tools` has. A copy of that may have extensions of its own. */
  binDir?: string;
  /** Of postgresql.conf, after ours. */
  settings?: Readonly<Record<string, string>>;
  /** Default: trust. */
  auth?: 'trust' | 'scram-sha-256';
  /** Of the superuser `postgres`. Default: `postgres` with scram-sha-256, else none. */
  password?: string;
  initdbArgs?: readonly string[];
  /** Default: a new one below the temporary directory. One that exists and holds a cluster is used as it is. */
  dataDir?: string;
  port?: number;
}

export type StopMode = 'fast' | 'immediate';

/** A server of this test process: it ends with the process, and its data directory with it unless the caller chose that. */
export interface PostgresServer extends PostgresAccess {
  /** Of the postmaster, since the latest start. */
  readonly pid: number;
  dataDir: string;
  logFile: string;
  /** Waits until the server takes connections. Does nothing when it runs. */
  start(): Promise<void>;
  /** Default: fast. Does nothing when it is down. */
  stop(mode?: StopMode): Promise<void>;
  restart(mode?: StopMode): Promise<void>;
  /** SIGKILL to the postmaster: a crash. Returns when it is gone; its backends end when they notice, and `start` waits for that. */
  kill(): Promise<void>;
  /** Ends the server and deletes its data. */
  remove(): Promise<void>;
}

/** Small, quick and not durable; logical replication on, with room for several migrations at once. */
const SETTINGS: Readonly<Record<string, string>> = {
  listen_addresses: '127.0.0.1',
  unix_socket_directories: '',
  wal_level: 'logical',
  max_wal_senders: '20',
  max_replication_slots: '20',
  max_logical_replication_workers: '12',
  max_worker_processes: '24',
  max_prepared_transactions: '10',
  fsync: 'off',
  synchronous_commit: 'off',
  full_page_writes: 'off',
  max_wal_size: '2GB',
  log_min_messages: 'warning',
  password_encryption: 'scram-sha-256',
};

/** How long the backends of a killed postmaster may take to notice, before a new one is refused their memory for good. */
const CRASH_PATIENCE_MS = 30_000;

export async function startPostgres(options: StartPostgresOptions): Promise<PostgresServer> {
  const { major, auth = 'trust', initdbArgs = [] } = options;
  const password = options.password ?? (auth === 'trust' ? undefined : 'postgres');
  // A port that was free may be taken a moment later by somebody else; that is worth another try, if we chose it.
  for (let attempt = 1; ; attempt++) {
    const access = postgresAccess(major, options.port ?? (await freePort()), password, options.binDir);
    const env = cleanEnv(access.env);
    const home = options.dataDir === undefined ? makeServerDir(path.join(workDir(), `pg${major}-`)) : undefined;
    const dataDir = options.dataDir ?? path.join(home ?? '', 'data');
    const disown = own({ dataDir, remove: home === undefined ? [] : [home] });
    if (!existsSync(path.join(dataDir, 'PG_VERSION'))) {
      await makeCluster(dataDir, { major, binDir: access.binDir, env, auth, password, initdbArgs });
    }
    const settings = { ...SETTINGS, ...options.settings, port: String(access.port) };
    const lines = Object.entries(settings).map(([name, value]) => `${name} = '${value.replaceAll("'", "''")}'\n`);
    appendFileSync(path.join(dataDir, 'postgresql.conf'), lines.join(''));
    const server = makeServer(access, dataDir, env, () => {
      rmSync(home ?? dataDir, { recursive: true, force: true });
      disown();
    });
    try {
      await server.start();
      return server;
    } catch (error) {
      await (home === undefined ? server.stop('immediate') : server.remove());
      const portIsTaken = error instanceof Error && error.message.includes('could not create any TCP/IP sockets');
      if (!portIsTaken || home === undefined || options.port !== undefined || attempt === 3) throw error;
    }
  }
}

function makeServer(
  access: PostgresAccess,
  dataDir: string,
  env: NodeJS.ProcessEnv,
  deleteData: () => void,
): PostgresServer {
  const logFile = `${dataDir}.log`;
  const pidFile = path.join(dataDir, 'postmaster.pid');
  const control = (...args: string[]): Promise<string> =>
    runProgram(path.join(access.binDir, 'pg_ctl'), ['-D', dataDir, '-w', '-t', '60', ...args], { env });
  const isRunning = (): Promise<boolean> =>
    control('status').then(
      () => true,
      () => false,
    );
  let pid = 0;
  const start = async (): Promise<void> => {
    for (const giveUpAt = Date.now() + CRASH_PATIENCE_MS; !(await isRunning());) {
      const logBefore = readLog(logFile).length;
      try {
        await control('-l', logFile, 'start');
      } catch (error) {
        const said = readLog(logFile).slice(logBefore);
        const backendsAreLeft = said.includes('pre-existing shared memory block');
        if (!backendsAreLeft || Date.now() > giveUpAt) {
          throw new Error(`PostgreSQL ${access.major} did not start on ${dataDir}. Its log: ${said}`, { cause: error });
        }
        await delay(50);
      }
    }
    pid = Number(readFileSync(pidFile, 'utf8').split('\n')[0]);
  };
  const stop = async (mode: StopMode = 'fast'): Promise<void> => {
    if (await isRunning()) await control('-m', mode, 'stop');
  };
  return {
    ...access,
    dataDir,
    logFile,
    get pid() {
      return pid;
    },
    start,
    stop,
    restart: async (mode) => {
      await stop(mode);
      await start();
    },
    kill: async () => {
      process.kill(pid, 'SIGKILL');
      while (await isRunning()) await delay(10);
    },
    remove: async () => {
      await stop('immediate');
      deleteData();
    },
  };
}

function readLog(file: string): string {
  return existsSync(file) ? readFileSync(file, 'utf8') : '';
}
