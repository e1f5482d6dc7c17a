import { readFileSync } from 'node:fs';
import type { ActivityOptions } from '@temporalio/workflow';
import { describe, expect, inject, test } from 'vitest';

describe('the workflow bundle', () => {
  test('holds neither a driver nor anything of Node, and no step', () => {
    const path = inject('workflowBundlePath');
    if (path === null) throw new Error('The workflow bundle was not built: see test/support/global-setup.ts.');
    const code = readFileSync(path, 'utf8');
    expect(code).toContain('migrateCluster');
    for (const forbidden of [
      'pg-protocol',
      'node_modules/pg/',
      'node:fs',
      'node:net',
      'src/postgres/',
      'src/preflight/',
      'activities/copy',
    ])
      expect(code).not.toContain(forbidden);
  });

  test('exports the three workflow types and nothing else', async () => {
    expect(Object.keys(await import('../../workflows/index.ts')).sort()).toEqual([
      'migrateCluster',
      'migrateDatabase',
      'validateCluster',
    ]);
  });
});

test('a duration is checked by the compiler', () => {
  // @ts-expect-error Without "paths" in tsconfig.json every text would do.
  const options: ActivityOptions = { startToCloseTimeout: 'banana' };
  expect(options).toBeDefined();
});
