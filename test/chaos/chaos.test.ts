import { expect, test } from 'vitest';
import { campaign } from './campaign.ts';
import { planRun } from './plan.ts';

/** `npm run test:chaos -- --seed 100 --runs 200` sets these; `npm test` has a short campaign, of the same runs each time. */
const first = Number(process.env['CHAOS_SEED'] ?? 1);
const runs = Number(process.env['CHAOS_RUNS'] ?? 10);

test(
  'whatever dies, a migration ends equal on both sides, or undone with a sentence',
  { timeout: (runs + 1) * 300_000 },
  async () => {
    const plans = Array.from({ length: runs }, (_, index) => planRun(first + index));
    const results = await campaign(plans, (line) => console.log(line));
    expect(results.flatMap(({ plan, problems }) => problems.map((problem) => `seed ${plan.seed}: ${problem}`))).toEqual(
      [],
    );
  },
);
