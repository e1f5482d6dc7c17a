import type { WorkerDeploymentVersion } from '@temporalio/common';

/**
 * Reads the two variables that Temporal's own worker controller sets. Neither: no versioning.
 * @throws Error with one sentence when there is only one of them
 */
export function readDeployment(env: NodeJS.ProcessEnv): WorkerDeploymentVersion | null {
  const deploymentName = env['TEMPORAL_DEPLOYMENT_NAME'] ?? '';
  const buildId = env['TEMPORAL_WORKER_BUILD_ID'] ?? '';
  if (deploymentName === '' && buildId === '') return null;
  if (deploymentName === '' || buildId === '')
    throw new Error(
      'Set both TEMPORAL_DEPLOYMENT_NAME and TEMPORAL_WORKER_BUILD_ID, or neither: a version of a worker needs both names.',
    );
  if (deploymentName.includes('.'))
    throw new Error('TEMPORAL_DEPLOYMENT_NAME must not have a dot in it: Temporal writes NAME.BUILD.');
  return { deploymentName, buildId };
}
