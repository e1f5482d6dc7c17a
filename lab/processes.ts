import { spawn } from 'node:child_process';
import { Socket } from 'node:net';
import path from 'node:path';
import { projectRoot } from './tools.ts';

/** What must not outlive this process. */
export interface Owned {
  /** A process, killed by its number. */
  pid?: number;
  /** The data directory of a PostgreSQL server, which is found by its pid file: so one that is just starting counts. */
  dataDir?: string;
  /** Files and directories, deleted after the processes have ended. */
  remove?: readonly string[];
}

let reaper: Socket | undefined;
let count = 0;

/**
 * Registers something that is ended when this process ends, however it ends. The function it returns lets go of it.
 *
 * A process killed with SIGKILL cannot clean up, and test runs are killed. So this is the work of a second process that
 * notices the end of the first by a closed pipe, for every way to end alike; there are no signal handlers.
 */
export function own(thing: Owned): () => void {
  reaper ??= startReaper();
  const pipe = reaper;
  const id = ++count;
  pipe.write(`${JSON.stringify({ id, thing })}\n`);
  return () => void pipe.write(`${JSON.stringify({ id })}\n`);
}

function startReaper(): Socket {
  const child = spawn(process.execPath, [path.join(projectRoot, 'lab', 'reaper.mjs')], {
    detached: true, // a Ctrl-C at the terminal goes to all processes of a group, and this one must survive it
    stdio: ['pipe', 'ignore', 'inherit'],
  });
  if (!(child.stdin instanceof Socket)) throw new Error('The process that cleans up after tests could not be started.');
  child.unref();
  child.stdin.unref();
  return child.stdin;
}
