import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { own } from './processes.ts';
import { projectRoot } from './tools.ts';

export interface WorkerProcess {
  pid: number;
  /** Everything that it has printed. */
  output(): string;
  /** SIGKILL, and waits for the end. */
  kill(): Promise<void>;
  /** SIGTERM, and waits for the end. */
  stop(): Promise<void>;
}

/** `pgtransit worker` as users run it, of this version or of another one; it polls its queues when this returns. */
export async function startWorkerProcess(
  env: Readonly<Record<string, string>>,
  program = `${projectRoot}/bin/pgtransit`,
): Promise<WorkerProcess> {
  const child = spawn(process.execPath, [program, 'worker'], {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const pid = child.pid ?? 0;
  const disown = own({ pid });
  const lines: string[] = [];
  const ended = once(child, 'exit').then(disown);
  await new Promise<void>((resolve, reject) => {
    for (const stream of [child.stdout, child.stderr])
      createInterface({ input: stream }).on('line', (line) => {
        lines.push(line);
        if (line.startsWith('ready')) resolve();
      });
    void ended.then(() => reject(new Error(`The worker ended:\n${lines.join('\n')}`)));
  });
  const end = async (signal: NodeJS.Signals): Promise<void> => {
    child.kill(signal);
    await ended;
  };
  return { pid, output: () => lines.join('\n'), kill: () => end('SIGKILL'), stop: () => end('SIGTERM') };
}
