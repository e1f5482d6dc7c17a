import { readdirSync, readFileSync } from 'node:fs';

/** Of user space on Linux, whatever the kernel was built with. */
const TICKS_PER_SECOND = 100;

interface Times {
  parent: number;
  /** User and system, in seconds. */
  own: number;
  /** Of children that have ended and were waited for. */
  ended: number;
}

/** Fields of /proc/<pid>/stat, counted after the name in parentheses, which may hold blanks. */
function times(pid: number): Times | undefined {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
      .replace(/^.*\) /s, '')
      .split(' ')
      .map(Number);
    const [parent = 0, utime = 0, stime = 0, cutime = 0, cstime = 0] = [1, 11, 12, 13, 14].map((i) => fields[i]);
    return { parent, own: (utime + stime) / TICKS_PER_SECOND, ended: (cutime + cstime) / TICKS_PER_SECOND };
  } catch {
    return undefined; // it has ended
  }
}

/** CPU seconds of one process with all its threads, without its children. */
export const processCpuSeconds = (pid: number): number => times(pid)?.own ?? 0;

/** CPU seconds of a PostgreSQL server so far: the postmaster, all backends and workers, also those that have ended. */
export function serverCpuSeconds(postmaster: number): number {
  for (;;) {
    const before = childrenOf(postmaster);
    const server = times(postmaster);
    if (server === undefined) throw new Error(`The server with pid ${postmaster} has ended.`);
    // A backend that ends in between would be counted twice or not at all.
    if ([...childrenOf(postmaster).keys()].join() !== [...before.keys()].join()) continue;
    return [...before.values()].reduce((sum, child) => sum + child.own, server.own + server.ended);
  }
}

function childrenOf(parent: number): Map<number, Times> {
  const children = new Map<number, Times>();
  for (const name of readdirSync('/proc')) {
    const found = /^\d+$/.test(name) ? times(Number(name)) : undefined;
    if (found?.parent === parent) children.set(Number(name), found);
  }
  return children;
}

/** The most memory that a process has had resident, in bytes. */
export function peakMemoryBytes(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1024;
}
