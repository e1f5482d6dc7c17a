import path from 'node:path';
import { defineConfig } from 'vitest/config';
import usual from '../../vitest.config.ts';

/** A long campaign: it starts its own servers, and its lines are to be read while it runs. */
export default defineConfig({
  root: path.join(import.meta.dirname, '..', '..'),
  test: { ...usual.test, include: ['test/chaos/*.test.ts'], globalSetup: [], disableConsoleIntercept: true },
});
