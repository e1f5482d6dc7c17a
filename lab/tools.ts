import { spawnSync } from 'node:child_process';
import {
  accessSync,
  constants,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
} from 'node:fs';
import { rmSync, statSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { packageRoot } from '../src/package-root.ts';
import { serverUser } from './run-program.ts';

export const projectRoot = packageRoot();
const tools = path.join(projectRoot, '.tools');

/** The majors a test run has servers of; scripts/setup.mjs fetches the same. */
export const testMajors: readonly number[] = (process.env.PGTRANSIT_PG_MAJORS ?? '14,15,17,18').split(',').map(Number);

/** The Temporal CLI, looked for in the order of scripts/setup.mjs. */
export function temporalCliPath(): string {
  const named = process.env.TEMPORAL_CLI_PATH;
  if (named) {
    if (isExecutable(named)) return named;
    throw new Error(`TEMPORAL_CLI_PATH is "${named}", which is no executable file: correct it or unset it.`);
  }
  const sdk = path.join(projectRoot, 'node_modules/@temporalio/testing/package.json');
  const places = [
    ...(process.env.PATH ?? '').split(path.delimiter).map((dir) => path.join(dir, 'temporal')),
    path.join(tools, 'bin', 'temporal'),
    path.join(os.tmpdir(), `temporal-sdk-typescript-${versionIn(sdk)}`),
  ];
  const found = places.find(isExecutable);
  if (found) return found;
  throw new Error('There is no Temporal CLI: run `npm run setup`, which fetches one, or set TEMPORAL_CLI_PATH.');
}

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

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile();
  } catch {
    return false;
  }
}

function versionIn(packageJson: string): string {
  try {
    return (JSON.parse(readFileSync(packageJson, 'utf8')) as { version: string }).version;
  } catch {
    return 'unknown';
  }
}
