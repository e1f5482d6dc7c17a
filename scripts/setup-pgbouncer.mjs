import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';

/**
 * PgBouncer for the tests of the fence in front of it, from Debian's packages, which nobody needs to be root to unpack.
 * One that is on the PATH is taken as it is, which is also the way on a system without apt-get.
 */
const home = (tools) => path.join(tools, 'pgbouncer');

export function pgbouncerIsThere(tools) {
  const onPath = (process.env.PATH ?? '').split(path.delimiter).map((dir) => path.join(dir, 'pgbouncer'));
  return [...onPath, path.join(home(tools), '.complete')].some(existsSync);
}

/** `setup`: the directories `tools` and `scratch`, and `run` for programs. Without it all but its tests work. */
export async function installPgbouncer(setup) {
  console.log("Fetching PgBouncer (Debian's package)");
  const work = mkdtempSync(path.join(setup.scratch, 'pgbouncer-'));
  try {
    await unpack(setup, work);
  } catch (error) {
    console.log(`PgBouncer could not be fetched, so the tests of its fence need one on the PATH: ${error.message}`);
  }
  rmSync(work, { recursive: true, force: true });
}

async function unpack({ tools, run }, work) {
  const unpacked = path.join(work, 'install');
  const lists = path.join(work, 'lists');
  for (const dir of [unpacked, path.join(lists, 'partial')]) mkdirSync(dir, { recursive: true });
  // Lists of our own: those of a fresh machine are empty, and only root may fill them.
  const own = ['-o', `Dir::State::Lists=${lists}`, '-o', `Dir::Cache=${work}`, '-o', 'APT::Sandbox::User='];
  await run('apt-get', [...own, 'update', '-qq']);
  const depends = await run('apt-cache', [...own, 'depends', 'pgbouncer']);
  // Its libraries come along, so that they need not be installed; the C library must be the system's.
  const named = [...depends.matchAll(/Depends: (lib\S+)/g)].map(([, name]) => name);
  const libraries = named.filter((name) => name !== 'libc6');
  await run('apt-get', [...own, 'download', '-qq', 'pgbouncer', ...libraries], { cwd: work });
  for (const file of readdirSync(work).filter((name) => name.endsWith('.deb')))
    await run('dpkg-deb', ['-x', path.join(work, file), unpacked]);
  writeFileSync(path.join(unpacked, '.complete'), '');
  rmSync(home(tools), { recursive: true, force: true });
  renameSync(unpacked, home(tools));
}
