import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Client, Connection } from '@temporalio/client';
import { startPostgres, type PostgresServer } from '../../lab/postgres-server.ts';
import { makeServerDir } from '../../lab/postgres-template.ts';
import { own } from '../../lab/processes.ts';
import { startTemporalServer, type TemporalServer } from '../../lab/temporal-server.ts';
import { workDir } from '../../lab/tools.ts';
import { startWorkerProcess, type WorkerProcess } from '../../lab/worker-process.ts';
import { BANK } from './bank.ts';
import { createFailpoints, type Failpoints } from './failpoints.ts';
import { startProxy, type Proxy } from './proxy.ts';

/** One server of a pair, and the network before it. */
export interface Side {
  server: PostgresServer;
  proxy: Proxy;
  /** Where its data is, when that is a file system of its own, which can be filled; else null. */
  smallDisk: string | null;
}

/** What runs share: servers of two majors, Temporal, and workers. */
export interface World {
  source: Side;
  target: Side;
  temporal: TemporalServer;
  client: Client;
  taskQueue: string;
  failpoints: Failpoints;
  workers: Workers;
  close(): Promise<void>;
}

/** Databases are made from it, so that each run has the same one at once. */
export const TEMPLATE = 'chaos_bank';

/** As small as PostgreSQL allows, so that a full disk is filled at once and slots lose their WAL soon. */
const SETTINGS = {
  max_connections: '60',
  wal_keep_size: '0',
  min_wal_size: '32MB',
  max_wal_size: '128MB',
  // A killed backend would be restarted by the server only after 5 s.
  wal_retrieve_retry_interval: '500ms',
} as const;

/** Enough for the target's WAL and several small databases. */
const DISK_MB = 512;

export async function createTemporal(): Promise<{ temporal: TemporalServer; client: Client; close(): Promise<void> }> {
  const dir = mkdtempSync(path.join(workDir(), 'chaos-temporal-'));
  own({ remove: [dir] });
  const temporal = await startTemporalServer({ dbFile: path.join(dir, 'temporal.db') });
  const connection = await Connection.connect({ address: temporal.address });
  return {
    temporal,
    client: new Client({ connection }),
    close: async () => {
      await connection.close();
      await temporal.stop();
    },
  };
}

export async function createWorld(
  sourceMajor: number,
  targetMajor: number,
  { temporal, client }: { temporal: TemporalServer; client: Client },
): Promise<World> {
  const disk = mountDisk();
  const [source, target] = await Promise.all([
    // What it has acknowledged must be there after a crash. Its target takes it easy, as targets do.
    createSide(sourceMajor, { ...SETTINGS, synchronous_commit: 'on' }, null),
    createSide(targetMajor, SETTINGS, disk),
  ]);
  await source.server.psql('postgres', `CREATE DATABASE ${TEMPLATE}`);
  await source.server.psql(TEMPLATE, BANK);
  const failpoints = createFailpoints();
  const taskQueue = `chaos-${sourceMajor}-${targetMajor}-${process.pid}`;
  const through = ({ server, proxy }: Side): string => {
    const uri = new URL(server.uri('postgres'));
    uri.port = String(proxy.port);
    return uri.href;
  };
  const workers = createWorkers({
    TEMPORAL_ADDRESS: temporal.address,
    PGTRANSIT_TASK_QUEUE: taskQueue,
    SOURCE_SERVICE_URI: through(source),
    TARGET_SERVICE_URI: through(target),
    ...failpoints.env,
  });
  return {
    source,
    target,
    temporal,
    client,
    taskQueue,
    failpoints,
    workers,
    close: async () => {
      await workers.close();
      for (const { server, proxy } of [source, target]) {
        await proxy.close();
        await server.remove();
      }
      if (disk !== null) unmountDisk(disk);
    },
  };
}

async function createSide(
  major: number,
  settings: Readonly<Record<string, string>>,
  smallDisk: string | null,
): Promise<Side> {
  const place = smallDisk === null ? {} : { dataDir: path.join(smallDisk, 'data') };
  const server = await startPostgres({ major, settings, ...place });
  return { server, proxy: await startProxy(server.port), smallDisk };
}

/** A file system in memory, where we may mount one; null elsewhere, and then no disk is filled. */
function mountDisk(): string | null {
  for (const left of readdirSync(workDir())) {
    const pid = DISK.exec(left)?.[1];
    if (pid !== undefined && !isAlive(Number(pid))) unmountDisk(path.join(workDir(), left));
  }
  const dir = makeServerDir(path.join(workDir(), `chaos-disk-${process.pid}-`));
  const { status } = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${DISK_MB}m,mode=0777`, 'pgtransit-chaos', dir]);
  if (status === 0) return dir;
  rmSync(dir, { recursive: true });
  return null;
}

/** The process that cleans up after a campaign that was killed does not unmount, so the next campaign does. */
const DISK = /^chaos-disk-(\d+)-/;

function unmountDisk(dir: string): void {
  spawnSync('umount', ['--lazy', dir]);
  rmSync(dir, { recursive: true, force: true });
}

/** There is always one that works, unless somebody wants it otherwise. */
export interface Workers {
  all(): readonly WorkerProcess[];
  /** The one that was started last, when it is there and awake. */
  awake(): WorkerProcess | null;
  /** SIGSTOP: as a machine that is out of reach for a while. */
  pause(worker: WorkerProcess): void;
  wake(worker: WorkerProcess): void;
  /** Starts one when none is awake. */
  ensure(): Promise<void>;
  /** Ends all but the latest. */
  onlyOne(): Promise<void>;
  /** What all of them have printed, also those that are gone. */
  output(): string;
  forgetOutput(): void;
  close(): Promise<void>;
}

function createWorkers(env: Record<string, string>): Workers {
  const workers = new Set<WorkerProcess>();
  const paused = new Set<WorkerProcess>();
  const gone: string[] = [];
  let starting: Promise<void> | null = null;
  const sweep = (): void => {
    for (const worker of workers) {
      if (isAlive(worker.pid)) continue;
      workers.delete(worker);
      paused.delete(worker);
      gone.push(`--- worker ${worker.pid}, gone\n${worker.output()}`);
    }
  };
  const awake = (): WorkerProcess | null => {
    sweep();
    return [...workers].filter((worker) => !paused.has(worker)).at(-1) ?? null;
  };
  const start = async (): Promise<void> => {
    // One that comes to a failpoint before it is ready ends at once; the next call starts another.
    const worker = await startWorkerProcess(env).catch((error: unknown) => {
      gone.push(`--- a worker that was never ready\n${String(error)}`);
      return null;
    });
    if (worker !== null) workers.add(worker);
  };
  const wake = (worker: WorkerProcess): void => {
    if (paused.delete(worker) && isAlive(worker.pid)) process.kill(worker.pid, 'SIGCONT');
  };
  return {
    all: () => {
      sweep();
      return [...workers];
    },
    awake,
    pause: (worker) => {
      process.kill(worker.pid, 'SIGSTOP');
      paused.add(worker);
    },
    wake,
    ensure: async () => {
      if (awake() !== null) return;
      starting ??= start().finally(() => (starting = null));
      await starting;
    },
    onlyOne: async () => {
      const latest = awake();
      sweep();
      for (const worker of workers) {
        if (worker === latest) continue;
        wake(worker);
        await worker.kill();
      }
      sweep();
    },
    output: () => {
      sweep();
      return [...gone, ...[...workers].map((worker) => `--- worker ${worker.pid}\n${worker.output()}`)].join('\n');
    },
    forgetOutput: () => {
      gone.length = 0;
    },
    close: async () => {
      await starting;
      for (const worker of workers) {
        wake(worker);
        await worker.kill();
      }
    },
  };
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/** Asks again until it is so; false when it was not within `ms`. */
export async function until(isSo: () => Promise<boolean> | boolean, ms: number, everyMs = 50): Promise<boolean> {
  for (const giveUpAt = Date.now() + ms; ; await delay(everyMs)) {
    if (await isSo()) return true;
    if (Date.now() > giveUpAt) return false;
  }
}
