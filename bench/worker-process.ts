import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { own } from '../lab/processes.ts';
import { projectRoot } from '../lab/tools.ts';

export interface WorkerProcess {
  pid: number;
  /** SIGTERM, and waits for the end. */
  stop(): Promise<void>;
}

/** `pgtransit worker` as users run it; it polls its queues when this returns. */
export async function startWorker(env: Record<string, string>): Promise<WorkerProcess> {
  const child = spawn(process.execPath, [`${projectRoot}/bin/pgtransit`, 'worker'], {
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
  return {
    pid,
    stop: async () => {
      child.kill('SIGTERM');
      await ended;
    },
  };
}
