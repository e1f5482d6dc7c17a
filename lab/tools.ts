import { spawnSync } from 'node:child_process';
import { existsSync, lstatSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { packageRoot } from '../src/package-root.ts';
import { serverUser } from './run-program.ts';

export const projectRoot = packageRoot();
const tools = path.join(projectRoot, '.tools');

/** Whether there are servers of 10 to 13 for this machine. */
export const hasOldServers = process.arch === 'x64';

/** The majors of which all test files of a run share a server; scripts/setup.mjs fetches these, and 10 where there is one. */
export const testMajors: readonly number[] = (process.env.PGTRANSIT_PG_MAJORS ?? '14,15,17,18').split(',').map(Number);

const binDirs = new Map<number, string>();

/** The directory of the programs of a PostgreSQL major, where the user that servers run as can start them. */
export function pgBin(major: number): string {
  const known = binDirs.get(major);
  if (known) return known;
  const install = path.join(tools, `pg${major}`);
  if (!existsSync(path.join(install, 'bin', 'postgres'))) {
    throw new Error(`PostgreSQL ${major} is not installed: run \`npm run setup -- --pg ${major}\`.`);
  }
  const bin = path.join(isReachable(install) ? install : reachableCopy(major, install), 'bin');
  binDirs.set(major, bin);
  return bin;
}

/** Where psql is for a server of this major: 10 to 13 come without client programs, and a newer psql knows them all. */
export function psqlBin(major: number): string {
  const bin = pgBin(major);
  return existsSync(path.join(bin, 'psql')) ? bin : pgBin(Math.max(...testMajors));
}

/** Which minor `.tools` has, such as 17.11.0. */
export function pgVersion(major: number): string {
  return readFileSync(path.join(tools, `pg${major}`, '.version'), 'utf8');
}

/**
 * A directory for what servers keep, which only this user can write to. In the temporary directory, since a checkout
 * may be in a home that the user of the servers cannot enter.
 */
export function workDir(...names: string[]): string {
  const base = path.join(os.tmpdir(), `pgtransit-test-${process.getuid?.() ?? 'user'}`);
  mkdirSync(base, { recursive: true, mode: 0o755 });
  requireOurs(base);
  const dir = path.join(base, ...names);
  mkdirSync(dir, { recursive: true, mode: 0o755 });
  return dir;
}

/** When root runs the tests, servers run as nobody, who cannot enter a checkout below /root. */
function isReachable(install: string): boolean {
  if (serverUser.uid === undefined) return true;
  const postgres = path.join(install, 'bin', 'postgres');
  return spawnSync(postgres, ['--version'], { ...serverUser, cwd: '/' }).status === 0;
}

function reachableCopy(major: number, install: string): string {
  const copy = path.join(os.tmpdir(), `pgtransit-pg-${major}-${pgVersion(major)}`);
  if (!existsSync(copy)) {
    const temporary = mkdtempSync(`${copy}.`);
    for (const command of [
      ['cp', '-a', `${install}/.`, temporary],
      ['chmod', '-R', 'a+rX', temporary],
    ]) {
      const { status, stderr } = spawnSync(command[0] ?? '', command.slice(1), { encoding: 'utf8' });
      if (status !== 0) throw new Error(`PostgreSQL ${major} could not be copied to ${temporary}: ${stderr}`);
    }
    try {
      renameSync(temporary, copy);
    } catch {
      rmSync(temporary, { recursive: true }); // another process was first
    }
  }
  requireOurs(copy);
  return copy;
}

/** The temporary directory is everybody's: a directory there with an expected name may have been made by somebody else. */
function requireOurs(dir: string): void {
  const status = lstatSync(dir);
  const isPrivate = status.isDirectory() && (status.mode & 0o022) === 0;
  if (isPrivate && (process.getuid === undefined || status.uid === process.getuid())) return;
  throw new Error(`${dir} belongs to, or can be written by, another user: delete it, or set TMPDIR.`);
}
