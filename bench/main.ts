import { spawnSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { own } from '../lab/processes.ts';
import { makeServerDir } from '../lab/postgres-template.ts';
import { projectRoot, workDir } from '../lab/tools.ts';
import type { Contents } from './check.ts';
import { differenceBetween, readContents } from './check.ts';
import type { LoadedSet } from './data.ts';
import { loadDataSet } from './data.ts';
import { describeMachine, noise } from './machine.ts';
import type { SetReport } from './markdown.ts';
import { markdown } from './markdown.ts';
import type { MethodName } from './methods/index.ts';
import { METHODS, REFERENCE } from './methods/index.ts';
import type { BenchOptions } from './options.ts';
import { readOptions } from './options.ts';
import type { Run } from './report.ts';
import { summarize, turn } from './report.ts';
import type { Servers } from './servers.ts';
import { dropKept, equalize, startServers } from './servers.ts';

const began = performance.now();
const say = (line: string): void =>
  console.log(`${((performance.now() - began) / 1000).toFixed(0).padStart(5)} s  ${line}`);

const message = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** The exit status: 0 when every method did what it promises. */
async function main(options: BenchOptions): Promise<number> {
  setUp(options);
  const busy = noise();
  if (busy !== null) say(busy);
  const methods = options.methods.filter((name) => {
    const missing = METHODS[name].missing();
    if (missing !== null) say(`Without ${name}: ${missing}.`);
    return missing === null;
  });
  const servers = await startServers(options);
  const machine = [...(await describeMachine(servers, options)), ...(busy === null ? [] : [busy])];
  machine.forEach(say);

  const runs: Run[] = [];
  const reports: SetReport[] = [];
  const write = (): void => {
    save(options.json, `${JSON.stringify({ options, machine, sets: reports, runs }, null, 2)}\n`);
    save(
      options.markdown,
      markdown(machine, reports, (name) => METHODS[name].title),
    );
  };
  for (const name of options.sets) {
    const set = await loadDataSet(servers.source, name, options);
    const contents = await readContents(servers.source, name);
    say(`Made ${name}: ${set.tables} tables, ${set.indexes} indexes, ${Math.round(set.bytes / 1e6)} MB.`);
    for (let round = 0; round < options.rounds; round += 1) {
      for (const method of turn(methods, round, options.rounds)) {
        const run = await runOnce(servers, set, contents, method, round, options);
        runs.push(run);
        say(`${name}, round ${round + 1}, ${method}: ${run.failure ?? `${run.outcome?.seconds.toFixed(2) ?? '?'} s`}`);
      }
    }
    reports.push({ set, summaries: summarize(set, runs, methods, REFERENCE) });
    await equalize(servers, name, { create: false, keep: false });
    await dropKept(servers, name);
    await servers.source.psql('postgres', `DROP DATABASE ${name}`);
    write(); // after each set: a long run that is interrupted has not been for nothing
  }
  console.log(`\n${markdown(machine, reports, (name) => METHODS[name].title)}`);
  console.log(`Written to ${options.json} and ${options.markdown}.`);
  return runs.some(({ failure }) => failure !== null) ? 1 : 0;
}

/** Gets the PostgreSQL programs of these majors; at once when they are there. */
function setUp({ source, target }: BenchOptions): void {
  const majors = [...new Set([source, target])].join(',');
  const script = path.join(projectRoot, 'scripts', 'setup.mjs');
  const { status } = spawnSync(process.execPath, [script, '--pg', majors], { stdio: 'inherit' });
  if (status !== 0) throw new Error(`PostgreSQL ${majors} could not be set up.`);
}

/**
 * What a method made of a set below this is deleted after the set only. For up to six minutes ext4 gives the number of a
 * deleted file to no other, and looks through all of them for each file that is made: after 2,000 tables had been
 * dropped the next 2,000 took three times as long, whoever made them.
 */
const KEPT_BYTES = 500_000_000;

async function runOnce(
  servers: Servers,
  set: LoadedSet,
  contents: Contents,
  name: MethodName,
  round: number,
  { copy, index }: BenchOptions,
): Promise<Run> {
  const method = METHODS[name];
  const which = { set: set.name, method: name, round };
  const keep = set.bytes < KEPT_BYTES;
  const scratch = makeServerDir(path.join(workDir(), 'bench-'));
  const disown = own({ remove: [scratch] });
  const check = async (): Promise<void> => {
    const difference = differenceBetween(contents, await readContents(servers.target, set.name));
    if (difference !== null) throw new Error(difference);
  };
  try {
    await equalize(servers, set.name, { create: !method.createsDatabase, keep });
    const outcome = await method.run({ ...servers, set, scratch, copy, index }, check);
    return { ...which, outcome, failure: null };
  } catch (error) {
    return { ...which, outcome: null, failure: message(error) };
  } finally {
    // What is not removed now is when this process ends.
    if (!keep) {
      rmSync(scratch, { recursive: true, force: true });
      disown();
    }
  }
}

function save(file: string, text: string): void {
  mkdirSync(path.dirname(path.resolve(file)), { recursive: true });
  writeFileSync(file, text);
}

// What this process started ends with it, however it ends (lab/processes.ts).
main(readOptions(process.argv.slice(2)))
  .then((status) => process.exit(status))
  .catch((error: unknown) => {
    console.error(message(error));
    process.exit(1);
  });
