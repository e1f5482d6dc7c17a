import { execFile, spawn } from 'node:child_process';
import { accessSync, constants, existsSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { MigrationError } from '../domain/failure.ts';
import { redact } from './sqlstate.ts';

export type ProgramName = 'pg_dump' | 'pg_restore';

export interface Program {
  path: string;
  major: number;
  /** What the program needs in its environment to find its own libpq. */
  env: Readonly<Record<string, string>>;
}

export interface ProgramWish {
  /** `server_version_num` of both sides. pg_dump refuses a server newer than itself. */
  sourceVersion: number;
  targetVersion: number;
  /** Asks for the source's major first, where a newer one would write what the target refuses. */
  preferSourceMajor?: boolean;
}

const majorOf = (version: number): number => Math.floor(version / 10_000);

/**
 * Finds a client program: the target's major first, because its output is meant for that server; else one between
 * both majors; else a newer one, which reads older servers too.
 * @throws MigrationError `ProgramMissing`, naming every place that was looked at.
 */
export async function findProgram(
  name: ProgramName,
  wish: ProgramWish,
  env: NodeJS.ProcessEnv = process.env,
): Promise<Program> {
  const [source, target] = [majorOf(wish.sourceVersion), majorOf(wish.targetVersion)];
  const directories = placesToLook(env, [target, source, ...between(source, target)]);
  const first = wish.preferSourceMajor === true ? source : target;
  const found: Program[] = [];
  for await (const program of programsIn(directories, name, env)) {
    // To ask each for its version took 0.2 s, and there is no better one than this.
    if (program.major === first && first >= source) return program;
    found.push(program);
  }
  const usable = found.filter(({ major }) => major >= source);
  const [best] = usable.sort((a, b) => rank(a.major, first, target) - rank(b.major, first, target));
  if (best !== undefined) return best;
  const old = found.map(({ path, major }) => `${path} is of version ${major}`);
  throw new MigrationError(
    'ProgramMissing',
    `This worker has no ${name} of version ${Math.max(source, target)} (or at least ${source}). ` +
      `Looked in ${directories.join(', ')}${old.length > 0 ? `; ${old.join(', ')}` : ''}.`,
    { object: name },
  );
}

/** The first one of each major. */
async function* programsIn(
  directories: readonly string[],
  name: ProgramName,
  env: NodeJS.ProcessEnv,
): AsyncGenerator<Program> {
  const majors = new Set<number>();
  for (const directory of directories) {
    const program = await probe(join(directory, name), env);
    if (program === null || majors.has(program.major)) continue;
    majors.add(program.major);
    yield program;
  }
}

/** The first one of each major that there is on this machine, of those that there might be. */
export async function listPrograms(name: ProgramName, env: NodeJS.ProcessEnv = process.env): Promise<Program[]> {
  const found: Program[] = [];
  for await (const program of programsIn(placesToLook(env, between(OLDEST_MAJOR, NEWEST_MAJOR)), name, env))
    found.push(program);
  return found;
}

/** Of PostgreSQL, that a source may have … */
const OLDEST_MAJOR = 10;
/** … and well beyond what there is today. */
const NEWEST_MAJOR = 25;

/** The wished one, then downwards from the target's to the source's, then upwards from the target's. */
function rank(major: number, first: number, target: number): number {
  if (major === first) return -1;
  return major <= target ? target - major : 100 + major - target;
}

/** Whoever names directories means these programs and no others. */
function placesToLook(env: NodeJS.ProcessEnv, majors: readonly number[]): string[] {
  const list = (text: string | undefined) => (text ?? '').split(delimiter).filter((part) => part !== '');
  const named = list(env['PGTRANSIT_PG_BIN']);
  if (named.length > 0) return named;
  return [
    ...new Set([
      ...majors.map((major) => join(packageRoot(), '.tools', `pg${major}`, 'bin')),
      ...majors.map((major) => `/usr/lib/postgresql/${major}/bin`),
      ...list(env['PATH']),
    ]),
  ];
}

const between = (a: number, b: number): number[] =>
  Array.from({ length: Math.abs(a - b) + 1 }, (_, i) => Math.min(a, b) + i);

/** The same from src/ and from dist/src/. */
function packageRoot(): string {
  let directory = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(directory, 'package.json')) && dirname(directory) !== directory)
    directory = dirname(directory);
  return directory;
}

const execute = promisify(execFile);

async function probe(path: string, env: NodeJS.ProcessEnv): Promise<Program | null> {
  try {
    accessSync(path, constants.X_OK);
  } catch {
    return null;
  }
  const own = libraryOf(path, env);
  try {
    const { stdout } = await execute(path, ['--version'], { env: { ...env, ...own } });
    const version = /(\d+)(?:\.\d+|devel|beta\d+|rc\d+)/.exec(stdout)?.[1];
    return version === undefined ? null : { path, major: Number(version), env: own };
  } catch {
    return null;
  }
}

/** A PostgreSQL unpacked from an archive may lack an rpath; the system's libpq may be too old for its programs. */
function libraryOf(path: string, env: NodeJS.ProcessEnv): Record<string, string> {
  const library = join(dirname(dirname(path)), 'lib');
  if (!existsSync(join(library, 'libpq.so.5'))) return {};
  return { LD_LIBRARY_PATH: [library, env['LD_LIBRARY_PATH']].filter(Boolean).join(delimiter) };
}

export interface RunOptions {
  env: NodeJS.ProcessEnv;
  signal?: AbortSignal;
  /** Is told every line that the program writes to stderr. */
  onLine?: ((line: string) => void) | undefined;
}

/**
 * Runs a program and gives its output piece by piece; the program is killed when the signal aborts or the reader
 * stops. Arguments are visible to everybody on the machine: no secret among them.
 * @throws MigrationError `SchemaFailed` with the end of what it wrote to stderr, `ServerBusy` when somebody has killed it.
 */
export async function* runProgram(
  program: Program,
  args: readonly string[],
  options: RunOptions,
): AsyncGenerator<string> {
  const child = spawn(program.path, [...args], {
    env: { ...options.env, ...program.env },
    stdio: ['ignore', 'pipe', 'pipe'],
    ...(options.signal === undefined ? {} : { signal: options.signal, killSignal: 'SIGKILL' as const }),
  });
  let complaint = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (complaint = (complaint + text).slice(-4000)));
  if (options.onLine !== undefined) createInterface({ input: child.stderr }).on('line', options.onLine);
  const ended = new Promise<number | string>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, by) => resolve(code ?? by ?? 'an unknown signal'));
  });
  // Awaited below; an abort before that must not count as unhandled.
  ended.catch(() => undefined);
  try {
    for await (const piece of child.stdout.setEncoding('utf8')) yield piece as string;
    const code = await ended;
    options.signal?.throwIfAborted();
    if (code === 0) return;
    const name = program.path.slice(program.path.lastIndexOf('/') + 1);
    if (typeof code === 'string')
      throw new MigrationError('ServerBusy', `${name} was killed by ${code} before it was done.`, {
        object: name,
        next: "See whether the worker's machine is short of memory; it is tried again.",
      });
    throw new MigrationError('SchemaFailed', `${name} ended with ${code}: ${redact(lastLines(complaint))}`, {
      object: name,
    });
  } finally {
    if (child.exitCode === null) child.kill('SIGKILL');
  }
}

/** `--verbose` fills stderr with progress; what went wrong is in the lines that say so. */
function lastLines(text: string): string {
  const lines = text.trim().split('\n');
  const errors = lines.filter((line) => /error:|detail:|hint:|FATAL/i.test(line));
  return (errors.length > 0 ? errors : lines).slice(-5).join(' ');
}
