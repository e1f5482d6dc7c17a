/**
 * A campaign of any length, or a worker killed at every failpoint:
 *
 *   npm run test:chaos [-- --seed N --runs M]
 *   npm run test:chaos -- --failpoints MODE, which is one of those of sweep.ts
 */
import path from 'node:path';
import process from 'node:process';
import { parseArgs } from 'node:util';
import { startVitest } from 'vitest/node';

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: String(Math.floor(Math.random() * 1e6)) },
    runs: { type: 'string', default: '200' },
    failpoints: { type: 'string' },
  },
});
Object.assign(process.env, {
  CHAOS_SEED: values.seed,
  CHAOS_RUNS: values.runs,
  ...(values.failpoints && { CHAOS_FAILPOINTS: values.failpoints }),
});
// In this process: what ends it ends the campaign.
const vitest = await startVitest('test', [], {
  config: path.join(import.meta.dirname, 'vitest.config.ts'),
  watch: false,
});
await vitest.close();
