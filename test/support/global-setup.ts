import { existsSync, mkdtempSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { bundleWorkflowCode, DefaultLogger } from '@temporalio/worker';
import type { TestProject } from 'vitest/node';
import { startPostgres } from '../../lab/postgres-server.ts';
import { own } from '../../lab/processes.ts';
import { startTemporalServer } from '../../lab/temporal-server.ts';
import { pgBin, projectRoot, testMajors, workDir } from '../../lab/tools.ts';
import { temporalCliPath } from '../../src/temporal/cli-path.ts';
import './servers.ts';

/** What all test files of a run share: one Temporal server, one PostgreSQL server a major, one workflow bundle. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  temporalCliPath();
  testMajors.forEach(pgBin);
  const [temporal, postgres, bundle] = await Promise.all([
    startTemporalServer(),
    // More connections than usual: test files run side by side, and a migration takes a dozen on each side.
    Promise.all(testMajors.map((major) => startPostgres({ major, settings: { max_connections: '200' } }))),
    bundleWorkflows(),
  ]);
  project.provide('temporalAddress', temporal.address);
  project.provide('workflowBundlePath', bundle ?? null);
  project.provide('postgresPorts', Object.fromEntries(postgres.map((server) => [server.major, server.port])));
  return async () => {
    await Promise.all([temporal.stop(), ...postgres.map((server) => server.remove())]);
  };
}

/** Once a run instead of once a worker: it takes seconds. */
async function bundleWorkflows(): Promise<string | undefined> {
  const workflowsPath = path.join(projectRoot, 'workflows', 'index.ts');
  if (!existsSync(workflowsPath)) return undefined;
  const { code } = await bundleWorkflowCode({ workflowsPath, logger: new DefaultLogger('WARN') });
  const dir = mkdtempSync(path.join(workDir(), 'bundle-'));
  own({ remove: [dir] });
  const file = path.join(dir, 'workflow-bundle.js');
  writeFileSync(file, code);
  return file;
}
