import { spawnSync } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import path from 'node:path';
import { cleanEnv } from '../../lab/postgres-access.ts';
import { runProgram } from '../../lab/run-program.ts';
import type { Method } from './method.ts';
import { Stopwatch } from './method.ts';

function onPath(): string | null {
  for (const dir of (process.env.PATH ?? '').split(path.delimiter)) {
    const file = path.join(dir, 'pgcopydb');
    try {
      accessSync(file, constants.X_OK);
      return file;
    } catch {
      // not there
    }
  }
  return null;
}

/** Such as `pgcopydb version 0.18`; null where there is none. */
export function pgcopydbVersion(): string | null {
  const program = onPath();
  if (program === null) return null;
  return spawnSync(program, ['--version'], { encoding: 'utf8' }).stdout.split('\n')[0] ?? null;
}

/** Later versions have it, and it makes them faster. */
function binary(program: string): string[] {
  const { stdout, stderr } = spawnSync(program, ['clone', '--help'], { encoding: 'utf8' });
  return `${stdout}${stderr}`.includes('--use-copy-binary') ? ['--use-copy-binary'] : [];
}

/** With as many jobs as pg_dump has. It finds pg_dump and pg_restore on PATH: the target's come first there. */
export const pgcopydb: Method = {
  title: 'pgcopydb clone, 2 + 2 jobs',
  createsDatabase: false,
  missing: () => (onPath() === null ? 'pgcopydb is not on PATH' : null),
  async run(task, check) {
    const { source, target, set, scratch } = task;
    const program = onPath();
    if (program === null) throw new Error('pgcopydb is not on PATH.');
    const env = cleanEnv({ ...target.env, HOME: scratch, PATH: `${target.binDir}:${process.env.PATH ?? ''}` });
    const args = [
      ...['clone', '--source', source.uri(set.name), '--target', target.uri(set.name)],
      ...['--dir', path.join(scratch, 'pgcopydb'), '--table-jobs', '2', '--index-jobs', '2', ...binary(program)],
    ];
    const watch = new Stopwatch(task);
    await runProgram(program, args, { env });
    const { outcome } = watch;
    await check();
    return outcome;
  },
};
