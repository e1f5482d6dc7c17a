import os from 'node:os';
import path from 'node:path';
import { runProgram } from './run-program.ts';
import { pgBin, psqlBin } from './tools.ts';

export interface UriOptions {
  user?: string;
  /** Default: the superuser's when no user is named and the server asks for passwords, else none. */
  password?: string;
  params?: Readonly<Record<string, string>>;
}

/** How to reach a running server: what a test needs of one that it did not start. */
export interface PostgresAccess {
  major: number;
  port: number;
  /** Of the programs of this major; before 14 those that a server needs, and no others. */
  binDir: string;
  /** What those programs need in their environment; without it some libraries would load the system's older libpq. */
  env: { LD_LIBRARY_PATH: string };
  /** Default: superuser `postgres`, database `postgres`. */
  uri(database?: string, options?: UriOptions): string;
  /** Runs SQL as superuser and gives what psql prints of the rows: unaligned, without headings. Stops at an error. */
  psql(database: string, sql: string): Promise<string>;
}

export function postgresAccess(
  major: number,
  port: number,
  superuserPassword?: string,
  binDir: string = pgBin(major),
): PostgresAccess {
  const libraries = (bin: string): { LD_LIBRARY_PATH: string } => ({ LD_LIBRARY_PATH: path.join(bin, '..', 'lib') });
  const env = libraries(binDir);
  const uri = (database = 'postgres', options: UriOptions = {}): string => {
    const user = encodeURIComponent(options.user ?? 'postgres');
    const password = options.password ?? (options.user === undefined ? superuserPassword : undefined);
    const login = password === undefined ? user : `${user}:${encodeURIComponent(password)}`;
    const params = new URLSearchParams(options.params).toString().replaceAll('+', '%20'); // libpq takes + for a plus
    return `postgresql://${login}@127.0.0.1:${port}/${encodeURIComponent(database)}${params ? `?${params}` : ''}`;
  };
  const psql = async (database: string, sql: string): Promise<string> => {
    const args = ['-X', '-q', '-A', '-t', '-v', 'ON_ERROR_STOP=1', '-d', uri(database), '-f', '-'];
    const bin = psqlBin(major);
    const output = await runProgram(path.join(bin, 'psql'), args, { env: cleanEnv(libraries(bin)), input: sql });
    return output.trimEnd();
  };
  return { major, port, binDir, env, uri, psql };
}

/**
 * Our environment without the PG* variables of whoever runs the tests, which would reach psql, initdb and pg_ctl, and
 * without their home, where libpq looks for passwords and certificates.
 */
export function cleanEnv(more: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const kept = Object.entries(process.env).filter(([name]) => !name.startsWith('PG'));
  return { ...Object.fromEntries(kept), HOME: os.tmpdir(), LC_ALL: 'C.UTF-8', ...more };
}
