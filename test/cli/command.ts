import { spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { own } from '../../lab/processes.ts';
import { projectRoot } from '../../lab/tools.ts';

/** A pgtransit command as a user runs it. */
export interface RunningCommand {
  readonly pid: number;
  readonly stdout: string;
  readonly stderr: string;
  /** Waits until its output, on either stream, matches; fails when it ends before. */
  says(pattern: RegExp): Promise<void>;
  kill(signal: NodeJS.Signals): void;
  exitCode: Promise<number | null>;
}

/** Only these variables of ours reach it: what happens to be set where the tests run must not decide a test. */
export function pgtransit(args: readonly string[], env: NodeJS.ProcessEnv = {}): RunningCommand {
  const inherited = Object.entries(process.env).filter(
    ([name]) => !/^(TEMPORAL|PGTRANSIT|PG|SOURCE_|TARGET_)/.test(name),
  );
  const child = spawn(process.execPath, [path.join(projectRoot, 'bin', 'pgtransit'), ...args], {
    env: { ...Object.fromEntries(inherited), ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const disown = own({ pid: child.pid ?? 0 });
  const output = { stdout: '', stderr: '' };
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output.stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (output.stderr += text));
  let ended = false;
  const exitCode = once(child, 'close').then(([code]) => {
    ended = true;
    disown();
    return code as number | null;
  });
  return {
    pid: child.pid ?? 0,
    get stdout() {
      return output.stdout;
    },
    get stderr() {
      return output.stderr;
    },
    async says(pattern) {
      while (!pattern.test(output.stdout) && !pattern.test(output.stderr)) {
        if (ended) throw new Error(`It ended without saying ${pattern.source}:\n${output.stdout}${output.stderr}`);
        await delay(50);
      }
    },
    kill: (signal) => void child.kill(signal),
    exitCode,
  };
}
