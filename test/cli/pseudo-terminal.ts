import { spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { own } from '../../lab/processes.ts';
import { projectRoot } from '../../lab/tools.ts';
import { ESC, fakeTerminal } from '../support/terminal.ts';

/** A command in a shell on a pseudo terminal, which prints the terminal's modes before and after. */
export interface TerminalSession {
  /** Everything that the terminal shows and has shown. */
  shown(): string[];
  /** Waits until what the terminal shows matches; fails when the session ends before. */
  shows(pattern: RegExp): Promise<void>;
  /** As if typed; Ctrl-C is `\x03`. */
  type(text: string): void;
  ended: Promise<void>;
}

/** What has come so far, and the escape sequence that it may end in the middle of. */
const WHOLE = new RegExp(`^([^]*?)(${ESC}(?:\\[[\\d;?]*)?)?$`);

/** Any escape sequence but those that our view draws with makes `shown` fail. */
export function pgtransitOnTerminal(
  args: readonly string[],
  env: NodeJS.ProcessEnv,
  { columns, rows }: { columns: number; rows: number },
): TerminalSession {
  const command = [process.execPath, path.join(projectRoot, 'bin', 'pgtransit'), ...args].map((word) => `'${word}'`);
  const shell = `trap : INT; stty cols ${columns} rows ${rows}; stty -a; ${command.join(' ')}; echo "code $?"; stty -a`;
  const child = spawn('script', ['--quiet', '--return', '--command', shell, '/dev/null'], {
    env: { ...process.env, ...env, SHELL: '/bin/sh', TERM: 'xterm' },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const disown = own({ pid: child.pid ?? 0 });
  const terminal = fakeTerminal(columns, rows);
  let hasEnded = false;
  let unreadable: Error | undefined;
  child.stdout.setEncoding('utf8');
  let rest = '';
  child.stdout.on('data', (text: string) => {
    const [, whole = '', begun = ''] = WHOLE.exec(rest + text) ?? [];
    rest = begun;
    try {
      terminal.write(whole);
    } catch (error) {
      unreadable = error as Error;
    }
  });
  const ended = once(child, 'close').then(() => {
    hasEnded = true;
    disown();
  });
  const shown = () => {
    if (unreadable !== undefined) throw unreadable;
    return terminal.lines();
  };
  return {
    shown,
    async shows(pattern) {
      while (!pattern.test(shown().join('\n'))) {
        if (hasEnded) throw new Error(`It ended without showing ${pattern.source}:\n${shown().join('\n')}`);
        await delay(50);
      }
    },
    type: (text) => void child.stdin.write(text),
    ended,
  };
}
