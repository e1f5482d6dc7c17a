import { spawn } from 'node:child_process';
import { cpSync, existsSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { freePort } from '../src/temporal/free-port.ts';
import { own } from './processes.ts';
import { serverUser } from './run-program.ts';
import { makeServerDir } from './postgres-template.ts';
import { projectRoot, workDir } from './tools.ts';

export interface Pgbouncer {
  /** As clients connect, with a name of `[databases]`; `pgbouncer` is its admin console. */
  uri(database: string): string;
  /** Replaces `[databases]`, and reads it again. */
  configure(databases: Readonly<Record<string, string>>): Promise<void>;
  remove(): Promise<void>;
}

/** How long it may take to listen, or to be gone. */
const PATIENCE_MS = 10_000;

/** A PgBouncer of this test process, in transaction pooling. `databases`: name to `host=… port=… dbname=…`. */
export async function startPgbouncer(databases: Readonly<Record<string, string>>): Promise<Pgbouncer> {
  const { program, env, home } = install();
  const port = await freePort();
  const config = path.join(home, 'pgbouncer.ini');
  const users = path.join(home, 'users.txt');
  writeFileSync(users, '"admin" ""\n"postgres" ""\n', { mode: 0o644 });
  const write = (entries: Readonly<Record<string, string>>) => {
    const lines = Object.entries(entries).map(([name, value]) => `${name} = ${value}`);
    const settings = [
      `listen_addr = 127.0.0.1`,
      `listen_port = ${port}`,
      `unix_socket_dir =`,
      `auth_type = trust`,
      `auth_file = ${users}`,
      `admin_users = admin`,
      `pool_mode = transaction`,
      // What `pg` says when it connects.
      `ignore_startup_parameters = extra_float_digits`,
    ];
    writeFileSync(config, ['[databases]', ...lines, '[pgbouncer]', ...settings, ''].join('\n'), { mode: 0o644 });
  };
  write(databases);
  const child = spawn(program, [config], { ...serverUser, env, cwd: '/', stdio: ['ignore', 'pipe', 'pipe'] });
  const said: string[] = [];
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => said.push(text));
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const disown = own({ ...(child.pid !== undefined && { pid: child.pid }), remove: [home] });
  const uri = (database: string): string =>
    `postgres://${database === 'pgbouncer' ? 'admin' : 'postgres'}@127.0.0.1:${port}/${encodeURIComponent(database)}`;
  for (const giveUpAt = Date.now() + PATIENCE_MS; !said.join('').includes('process up'); await delay(20)) {
    if (child.exitCode === null && Date.now() < giveUpAt) continue;
    throw new Error(`PgBouncer did not start: ${said.join('')}`);
  }
  return {
    uri,
    configure: async (entries) => {
      write(entries);
      const before = said.join('').length;
      child.kill('SIGHUP');
      const told = () => said.join('').slice(before);
      for (const giveUpAt = Date.now() + PATIENCE_MS; !told().includes('re-reading config'); await delay(20))
        if (Date.now() > giveUpAt) throw new Error('PgBouncer did not read its configuration again.');
      if (told().includes('ERROR')) throw new Error(`PgBouncer does not take its configuration: ${told()}`);
    },
    remove: async () => {
      child.kill('SIGKILL');
      await exited;
      rmSync(home, { recursive: true, force: true });
      disown();
    },
  };
}

/** A copy in the temporary directory, because the user that servers run as may not see the checkout. */
function install(): { program: string; env: NodeJS.ProcessEnv; home: string } {
  const home = makeServerDir(path.join(workDir(), 'pgbouncer-'));
  const fetched = path.join(projectRoot, '.tools', 'pgbouncer');
  if (!existsSync(fetched)) return { program: 'pgbouncer', env: process.env, home };
  cpSync(path.join(fetched, 'usr'), path.join(home, 'usr'), { recursive: true });
  const lib = path.join(home, 'usr', 'lib');
  const libraries = readdirSync(lib).map((name) => path.join(lib, name));
  return {
    program: path.join(home, 'usr', 'sbin', 'pgbouncer'),
    env: { ...process.env, LD_LIBRARY_PATH: libraries.join(':') },
    home,
  };
}
