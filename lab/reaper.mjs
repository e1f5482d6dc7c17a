/**
 * Ends the servers of a test process that is gone, also one that was killed with SIGKILL and could end nothing itself.
 * Its standard input is a pipe from that process, one JSON line for each thing owned or let go; the end of the pipe is
 * the end of the process. See processes.ts.
 */
import { readFileSync, readlinkSync, realpathSync, rmSync } from 'node:fs';
import process from 'node:process';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';

/** How long a server may take to end when asked, before it is killed. */
const PATIENCE_MS = 5000;

const owned = new Map();

function read(file) {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
}

/** Field 22 of /proc/<pid>/stat: with it, a process that got the number of an ended one is not mistaken for it. */
const startTime = (pid) =>
  read(`/proc/${pid}/stat`)
    ?.replace(/^.*\) /s, '')
    .split(' ')[19];

/** A postmaster's pid file outlives a crash, but only the server itself has the data directory as its own. */
function postmaster(dataDir) {
  const pid = Number(read(`${dataDir}/postmaster.pid`)?.split('\n')[0]);
  try {
    return pid > 1 && readlinkSync(`/proc/${pid}/cwd`) === realpathSync(dataDir) ? pid : undefined;
  } catch {
    return undefined;
  }
}

function signal(pid, name) {
  try {
    process.kill(pid, name);
    return true;
  } catch {
    return false;
  }
}

async function end({ pid, started, dataDir, remove }) {
  const server = dataDir ? postmaster(dataDir) : undefined;
  if (server !== undefined) {
    // SIGQUIT is the immediate shutdown: the backends end too, which they do not when the postmaster is just killed.
    signal(server, 'SIGQUIT');
    for (const giveUpAt = Date.now() + PATIENCE_MS; signal(server, 0) && Date.now() < giveUpAt;) await delay(20);
    if (postmaster(dataDir) === server) signal(server, 'SIGKILL');
  }
  if (pid !== undefined && startTime(pid) === started) signal(pid, 'SIGKILL');
  for (const path of remove ?? []) rmSync(path, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
}

for await (const line of createInterface({ input: process.stdin })) {
  const { id, thing } = JSON.parse(line);
  if (thing) owned.set(id, { ...thing, started: thing.pid && startTime(thing.pid) });
  else owned.delete(id);
}
await Promise.all([...owned.values()].map(end));
