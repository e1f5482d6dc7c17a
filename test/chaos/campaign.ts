import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { WorkflowHandle } from '@temporalio/client';
import { workDir } from '../../lab/tools.ts';
import type { Failpoints } from './failpoints.ts';
import { outcomeOf } from './judge.ts';
import { describeEvent, type RunPlan } from './plan.ts';
import { perform, type RunResult } from './run.ts';
import { phaseOf } from './steps.ts';
import { createTemporal, createWorld, type World } from './world.ts';

export type Say = (line: string) => void;

/** Runs all plans, one after the other, and answers with each. Servers are shared by the runs with the same majors. */
export async function campaign(plans: readonly RunPlan[], say: Say): Promise<RunResult[]> {
  const temporal = await createTemporal();
  const worlds = new Map<string, World>();
  const results: RunResult[] = [];
  try {
    for (const plan of plans) {
      const key = `${plan.sourceMajor} ${plan.targetMajor}`;
      let world = worlds.get(key);
      if (world === undefined) {
        world = await createWorld(plan.sourceMajor, plan.targetMajor, temporal);
        worlds.set(key, world);
        if (world.target.smallDisk === null) say('No file system may be mounted here, so no disk is filled.');
      }
      try {
        const result = await perform(world, plan, async (found, handle) =>
          tell(found, await inspect(found, handle, world), say),
        );
        results.push(result);
        say(lineOf(result));
      } catch (error) {
        // What is broken now would break the next runs too.
        worlds.delete(key);
        await world?.close().catch(() => undefined);
        say(
          `seed ${plan.seed}: THE CAMPAIGN ITSELF FAILED: ${error instanceof Error ? (error.stack ?? '') : String(error)}`,
        );
        throw error;
      }
    }
    return results;
  } finally {
    say(table(results));
    for (const world of worlds.values()) await world.close();
    await temporal.close();
  }
}

function lineOf({ plan, events, ending, seconds, problems }: RunResult): string {
  const told = events.map((event) =>
    event.struckAt === null
      ? `[${describeEvent(event)}]`
      : `${describeEvent(event)} at ${(event.struckAt / 1000).toFixed(1)} s`,
  );
  const word = problems.length > 0 ? 'FOUND  ' : 'ok     ';
  return (
    `${word} seed ${plan.seed}  ${plan.sourceMajor}→${plan.targetMajor} ${plan.method}${plan.ranged ? ' in ranges' : ''}${plan.verify === 'full' ? ' verified' : ''}${plan.after === null ? '' : ` and ${plan.after}`}  ${told.join('; ')}  →  ` +
    `${outcomeOf(ending)}  ${seconds.toFixed(1)} s`
  );
}

/** Everything that an investigator needs, in a directory that stays. */
async function inspect(result: RunResult, handle: WorkflowHandle, world: World): Promise<string> {
  const dir = workDir('chaos', `seed-${result.plan.seed}-${Date.now()}`);
  const write = (name: string, content: string): void => writeFileSync(path.join(dir, name), content);
  mkdirSync(dir, { recursive: true });
  write('workers.log', world.workers.output());
  write('passed.log', passedText(world.failpoints));
  for (const [name, { server }] of Object.entries({ source: world.source, target: world.target }))
    write(`${name}.log`, readFileSync(server.logFile, 'utf8').slice(-200_000));
  const child = world.client.workflow.getHandle(`${handle.workflowId}/chaos_${result.plan.seed}`);
  for (const [name, one] of Object.entries({ cluster: handle, database: child })) {
    const description = await one.describe().catch((error: unknown) => String(error));
    const pending =
      typeof description === 'string'
        ? description
        : (description.raw.pendingActivities ?? []).map((activity) => ({
            name: activity.activityType?.name,
            attempt: activity.attempt,
            state: activity.state,
            failure: activity.lastFailure?.message,
            started: activity.lastStartedTime,
          }));
    const progress = await world.client
      .withDeadline(Date.now() + 3000, () => one.query('progress'))
      .catch((error: unknown) => String(error));
    write(`${name}.json`, JSON.stringify({ pending, progress }, null, 2));
    const history = await one.fetchHistory().catch(() => null);
    write(`${name}-history.json`, JSON.stringify(history ?? {}));
  }
  write('result.json', JSON.stringify(result, null, 2));
  return dir;
}

const passedText = (failpoints: Failpoints): string =>
  failpoints
    .passed()
    .map(
      ({ at, pid, name, effect }) => `${new Date(at).toISOString().slice(11, 23)} ${pid} ${effect ? '!' : ' '} ${name}`,
    )
    .join('\n');

function tell({ problems, plan }: RunResult, dir: string, say: Say): void {
  for (const problem of problems.slice(0, 12)) say(`        seed ${plan.seed}: ${problem}`);
  say(`        seed ${plan.seed}: everything about it is in ${dir}`);
}

/** How often each kind struck in each phase. */
export function table(results: readonly RunResult[]): string {
  const counts = new Map<string, Map<string, number>>();
  for (const { events } of results)
    for (const { kind, step, struckAt } of events) {
      if (struckAt === null) continue;
      const row = counts.get(kind.name) ?? new Map<string, number>();
      row.set(phaseOf(step), (row.get(phaseOf(step)) ?? 0) + 1);
      counts.set(kind.name, row);
    }
  const phases = [...new Set([...counts.values()].flatMap((row) => [...row.keys()]))];
  const outcomes = new Map<string, number>();
  for (const { ending, problems } of results) {
    const word =
      problems.length > 0
        ? 'FOUND'
        : ending.how === 'done'
          ? ending.parked.length === 0
            ? 'equal'
            : 'equal after an answer'
          : ending.how;
    outcomes.set(word, (outcomes.get(word) ?? 0) + 1);
  }
  const cell = (text: string | number): string => String(text).padStart(13);
  const lines = [...counts]
    .sort(([a], [b]) => a.localeCompare(b))
    .map(([kind, row]) => kind.padEnd(32) + phases.map((phase) => cell(row.get(phase) ?? '')).join(''));
  const seconds = results.reduce((sum, result) => sum + result.seconds, 0);
  return [
    '',
    ''.padEnd(32) + phases.map(cell).join(''),
    ...lines,
    `${results.length} runs in ${seconds.toFixed(0)} s: ${[...outcomes].map(([word, count]) => `${count} ${word}`).join(', ')}`,
  ].join('\n');
}
