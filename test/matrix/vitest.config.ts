import path from 'node:path';
import process from 'node:process';
import { defineConfig } from 'vitest/config';
import usual from '../../vitest.config.ts';

// Read where servers are started, also by the set-up of the run, which is in this process.
process.env['PGTRANSIT_PG_MAJORS'] ??= '10,11,12,13,14,15,16,17,18';

/** Every source with every target: too long for each run of the tests, so it has a command of its own. */
export default defineConfig({
  root: path.join(import.meta.dirname, '..', '..'),
  test: { ...usual.test, include: ['test/matrix/*.test.ts'], exclude: [], testTimeout: 180_000 },
});
