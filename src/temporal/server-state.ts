import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** What the state directory remembers of its Temporal server, between processes. */
export interface ServerState {
  /** Of the Temporal CLI that wrote the file last: its format is not promised from one version to the next. */
  cliVersion: string;
  port: number;
  uiPort: number;
  /** The server's process while it runs; `started` tells it from another one that was given the same number. */
  pid: number;
  started: string | null;
  /** Workflow ids of migrations that were not finished when the server was stopped; null: it was not stopped, it died. */
  open: string[] | null;
}

const fileOf = (stateDir: string): string => join(stateDir, 'server.json');

export function readServerState(stateDir: string): ServerState | null {
  let text: string;
  try {
    text = readFileSync(fileOf(stateDir), 'utf8');
  } catch {
    return null;
  }
  return JSON.parse(text) as ServerState;
}

/** Whole or not at all: a process may be killed while it writes. */
export function writeServerState(stateDir: string, state: ServerState): void {
  const temporary = `${fileOf(stateDir)}.${process.pid}`;
  writeFileSync(temporary, `${JSON.stringify(state, null, 2)}\n`, { mode: 0o600 });
  renameSync(temporary, fileOf(stateDir));
}

/** When a process was started, in clock ticks since the machine was (proc(5), field 22); null when it is not there. */
export function startOfProcess(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The second field is the program's name in parentheses, and may hold anything.
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? null;
  } catch {
    return null;
  }
}
