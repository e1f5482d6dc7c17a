/**
 * Compiles the TypeScript to dist/ and bundles the workflows, or does nothing when dist/ is current.
 *
 * `tsc` writes its output even when it finds errors, so the age of dist/ says nothing. A stamp written after the last
 * step does: it lists the sources of the build, and its time is the time the build began.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, statSync, utimesSync } from 'node:fs';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const dist = path.join(root, 'dist');
const stampFile = path.join(dist, '.built');

/** The `include` of tsconfig.build.json. */
const SOURCE_DIRS = ['src', 'activities', 'workflows', 'demo', 'bench', 'lab'];
/** What else changes the result. */
const SETTINGS = ['tsconfig.json', 'tsconfig.build.json', 'package-lock.json', 'scripts/build.mjs'];

function sourceFiles() {
  return SOURCE_DIRS.filter((dir) => existsSync(path.join(root, dir)))
    .flatMap((dir) =>
      readdirSync(path.join(root, dir), { recursive: true, encoding: 'utf8' }).map((file) => path.join(dir, file)),
    )
    .filter((file) => file.endsWith('.ts'))
    .sort();
}

const output = (source) => path.join(dist, source.replace(/\.ts$/, '.js'));
const mtime = (file) => statSync(path.join(root, file), { throwIfNoEntry: false })?.mtimeMs ?? Infinity;

function readStamp() {
  try {
    const sources = JSON.parse(readFileSync(stampFile, 'utf8'));
    return { sources, time: statSync(stampFile).mtimeMs };
  } catch {
    return undefined;
  }
}

/** Whether dist/ holds every output, each newer than what it was made of. */
export function buildIsCurrent() {
  const stamp = readStamp();
  const sources = sourceFiles();
  return (
    stamp !== undefined &&
    stamp.sources.join() === sources.join() &&
    [...sources, ...SETTINGS].every((file) => mtime(file) <= stamp.time) &&
    outputsExist(sources)
  );
}

function outputsExist(sources) {
  const bundled = !sources.includes('workflows/index.ts') || existsSync(path.join(dist, 'workflow-bundle.js'));
  return bundled && sources.every((file) => file.endsWith('.d.ts') || existsSync(output(file)));
}

export async function build() {
  const sources = sourceFiles();
  const began = new Date();
  const before = readStamp();
  mkdirSync(dist, { recursive: true });
  for (const gone of (before?.sources ?? []).filter((file) => !sources.includes(file))) {
    rmSync(output(gone), { force: true });
  }
  // With its own record of what it wrote, tsc would not write a file again that somebody deleted.
  if (before === undefined || !outputsExist(sources)) rmSync(path.join(dist, '.tsbuildinfo'), { force: true });

  const tsc = path.join(root, 'node_modules', '.bin', 'tsc');
  if (!existsSync(tsc)) throw new Error('The TypeScript compiler is not installed: run `npm run setup`.');
  const compiled = spawnSync(tsc, ['-p', 'tsconfig.build.json'], { cwd: root, stdio: 'inherit' });
  if (compiled.status !== 0) throw new Error('The TypeScript sources do not compile; the lines above say where.');

  if (sources.includes('workflows/index.ts')) await bundleWorkflows();
  writeAtomically(stampFile, JSON.stringify(sources), began);
}

/** Bundled at build time, so that a worker starts without webpack and every worker of a release runs the same code. */
async function bundleWorkflows() {
  const { bundleWorkflowCode, DefaultLogger } = await import('@temporalio/worker');
  const { code } = await bundleWorkflowCode({
    workflowsPath: path.join(dist, 'workflows', 'index.js'),
    logger: new DefaultLogger('WARN'),
  });
  writeAtomically(path.join(dist, 'workflow-bundle.js'), code);
}

function writeAtomically(file, content, time) {
  const temporary = `${file}.${process.pid}.tmp`;
  writeFileSync(temporary, content);
  if (time) utimesSync(temporary, time, time);
  renameSync(temporary, file);
}

if (process.argv[1] && path.resolve(process.argv[1]) === fileURLToPath(import.meta.url)) {
  try {
    if (!buildIsCurrent()) {
      console.log('Building dist/');
      await build();
    }
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    process.exitCode = 1;
  }
}
