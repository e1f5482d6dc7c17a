import { expect, test } from 'vitest';
import { campaign } from './campaign.ts';
import { planRun } from './plan.ts';
import { sweep, type SweepMode } from './sweep.ts';

/** main.mjs sets these; `npm test` has a short campaign, of the same runs each time. */
const first = Number(process.env['CHAOS_SEED'] ?? 1);
const runs = Number(process.env['CHAOS_RUNS'] ?? 10);
const failpoints = process.env['CHAOS_FAILPOINTS'] as SweepMode | undefined;

const say = (line: string): void => console.log(line);

test(
  'whatever dies, a migration ends equal on both sides, or undone with a sentence',
  { timeout: (failpoints === undefined ? runs + 1 : 100) * 300_000 },
  async () => {
    const results =
      failpoints === undefined
        ? await campaign(
            Array.from({ length: runs }, (_, index) => planRun(first + index)),
            say,
          )
        : await sweep(failpoints, say);
    expect(results.flatMap(({ plan, problems }) => problems.map((problem) => `seed ${plan.seed}: ${problem}`))).toEqual(
      [],
    );
  },
);
