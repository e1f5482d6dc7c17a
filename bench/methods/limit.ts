import os from 'node:os';
import path from 'node:path';
import { cleanEnv } from '../../lab/postgres-access.ts';
import type { PostgresServer } from '../../lab/postgres-server.ts';
import { runProgram } from '../../lab/run-program.ts';
import { serverCpuSeconds } from '../cpu.ts';
import type { Method } from './method.ts';

/**
 * What no tool on this machine can beat: the CPU time that the servers themselves need to read the rows, to write them
 * and to build indexes and constraints, without network or waiting, spread evenly over all cores.
 */
export const limit: Method = {
  title: "limit: CPU time of the servers' own work / cores",
  createsDatabase: false,
  missing: () => null,
  async run({ source, target, set, scratch }, check) {
    const env = cleanEnv({ ...target.env, PGOPTIONS: '-c max_parallel_maintenance_workers=0' });
    const program = (name: string): string => path.join(target.binDir, name);
    const archive = path.join(scratch, 'schema');
    const restore = (section: string): Promise<string> =>
      runProgram(
        program('pg_restore'),
        ['--exit-on-error', `--section=${section}`, '-d', target.uri(set.name), archive],
        { env },
      );
    await runProgram(program('pg_dump'), ['-Fc', '--schema-only', '-f', archive, '-d', source.uri(set.name)], { env });
    await restore('pre-data');

    const tables = (await source.psql(set.name, TABLES)).split('\n');
    const each = (sql: (table: string, file: string) => string): string =>
      tables.map((table, i) => sql(table, `'${path.join(scratch, `${i}.copy`)}'`)).join('\n');
    await source.psql(
      set.name,
      each((table, file) => `COPY ${table} TO ${file} (FORMAT binary);`),
    );

    const out = await cpuOf(source, () =>
      source.psql(
        set.name,
        each((table) => `COPY ${table} TO '/dev/null' (FORMAT binary);`),
      ),
    );
    const into = await cpuOf(target, () =>
      target.psql(
        set.name,
        each((table, file) => `BEGIN; TRUNCATE ${table}; COPY ${table} FROM ${file} (FORMAT binary, FREEZE); COMMIT;`),
      ),
    );
    const indexes = await cpuOf(target, () => restore('post-data'));
    await check();

    const cores = os.availableParallelism();
    const phases = { 'copy out': out / cores, 'copy in': into / cores, 'indexes and constraints': indexes / cores };
    const serverCpu = out + into + indexes;
    return {
      ...{ seconds: serverCpu / cores, phases, serverCpuSeconds: serverCpu },
      ...{ nodeCpuSeconds: null, peakMemoryBytes: null },
    };
  },
};

const TABLES = `SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = 'public'`;

async function cpuOf(server: PostgresServer, work: () => Promise<unknown>): Promise<number> {
  const before = serverCpuSeconds(server.pid);
  await work();
  return serverCpuSeconds(server.pid) - before;
}
