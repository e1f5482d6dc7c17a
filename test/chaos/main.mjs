/**
 * A campaign of any length, or a worker killed at every failpoint:
 *
 *   npm run test:chaos [-- --seed N --runs M]
 *   npm run test:chaos -- --failpoints MODE, which is one of those of sweep.ts
 */
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import process from 'node:process';
import { parseArgs } from 'node:util';

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: String(Math.floor(Math.random() * 1e6)) },
    runs: { type: 'string', default: '200' },
    failpoints: { type: 'string' },
  },
});
const root = path.join(import.meta.dirname, '..', '..');
const { status } = spawnSync(
  path.join(root, 'node_modules', '.bin', 'vitest'),
  ['run', '--config', path.join(import.meta.dirname, 'vitest.config.ts')],
  {
    cwd: root,
    stdio: 'inherit',
    env: {
      ...process.env,
      CHAOS_SEED: values.seed,
      CHAOS_RUNS: values.runs,
      ...(values.failpoints && { CHAOS_FAILPOINTS: values.failpoints }),
    },
  },
);
process.exitCode = status ?? 1;
