import path from 'node:path';
import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** Quick and basic tests first: what they find explains the failures of the slow ones. */
const ORDER = ['unit', 'activities', 'workflows', 'replay', 'cli', 'e2e'];

const rank = ({ moduleId }: TestSpecification): number => {
  const [room = ''] = path.relative(path.join(import.meta.dirname, 'test'), moduleId).split(path.sep);
  return ORDER.includes(room) ? ORDER.indexOf(room) : ORDER.length;
};

class DirectoryOrder extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files);
    return sorted.toSorted((a, b) => rank(a) - rank(b));
  }
}

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // A quarter of an hour: `npm run test:matrix`.
    exclude: ['test/matrix/**'],
    globalSetup: ['test/support/global-setup.ts'],
    setupFiles: ['test/support/end-with-vitest.ts'],
    // Processes, not threads: the Temporal SDK's native library wants one of its own.
    pool: 'forks',
    // More than cores: many files wait for servers, heartbeats and timeouts.
    maxWorkers: 3,
    // Real servers, on machines that do other things at the same time.
    testTimeout: 60_000,
    hookTimeout: 120_000,
    sequence: { sequencer: DirectoryOrder },
  },
});
