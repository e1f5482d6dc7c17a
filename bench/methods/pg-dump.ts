import { spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { cleanEnv } from '../../lab/postgres-access.ts';
import { runProgram, serverUser } from '../../lab/run-program.ts';
import type { Method, Task } from './method.ts';
import { Stopwatch } from './method.ts';

/** The target's programs, as the manual of pg_dump advises. */
const program = ({ target }: Task, name: string): string => path.join(target.binDir, name);

/** With -Z0: no compression, more memory for sorting, commits that do not wait. */
const TUNED = '-c maintenance_work_mem=256MB -c synchronous_commit=off';

function directoryMethod(title: string, dumpArgs: readonly string[], pgOptions: string): Method {
  return {
    title,
    createsDatabase: false,
    missing: () => null,
    async run(task, check) {
      const { source, target, set, scratch } = task;
      const env = cleanEnv({ ...target.env, PGOPTIONS: pgOptions });
      const dump = path.join(scratch, 'dump');
      const watch = new Stopwatch(task);
      await watch.phase('pg_dump', () =>
        runProgram(program(task, 'pg_dump'), ['-Fd', '-j2', ...dumpArgs, '-f', dump, '-d', source.uri(set.name)], {
          env,
        }),
      );
      await watch.phase('pg_restore', () =>
        runProgram(program(task, 'pg_restore'), ['-j2', '--exit-on-error', '-d', target.uri(set.name), dump], { env }),
      );
      const { outcome } = watch;
      await check();
      return outcome;
    },
  };
}

export const pgDump = directoryMethod('pg_dump -Fd -j2, pg_restore -j2, defaults', [], '');

export const pgDumpTuned = directoryMethod('pg_dump -Fd -Z0 -j2, pg_restore -j2, tuned', ['-Z0'], TUNED);

/** Data goes from one program to the other without touching a disk, but with one connection on each side. */
export const pgDumpPipe: Method = {
  title: 'pg_dump -Fc, piped into pg_restore',
  createsDatabase: false,
  missing: () => null,
  async run(task, check) {
    const { source, target, set } = task;
    const options = { ...serverUser, cwd: '/', env: cleanEnv(target.env) };
    const watch = new Stopwatch(task);
    // A shell makes the pipe: the data does not come through this process.
    const child = spawn(
      '/bin/sh',
      [
        ...['-c', '"$1" -Fc -d "$2" | "$3" --exit-on-error -d "$4"', 'sh'],
        ...[program(task, 'pg_dump'), source.uri(set.name), program(task, 'pg_restore'), target.uri(set.name)],
      ],
      { ...options, stdio: ['ignore', 'ignore', 'pipe'] },
    );
    let said = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => (said += text));
    const [code] = (await once(child, 'close')) as [number | null];
    if (code !== 0 || said.includes('error:')) throw new Error(`pg_dump | pg_restore failed: ${said.trim()}`);
    const { outcome } = watch;
    await check();
    return outcome;
  },
};
