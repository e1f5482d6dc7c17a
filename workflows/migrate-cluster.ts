import { isCancellation, workflowInfo } from '@temporalio/workflow';
import { asOwnFailure } from '../src/domain/application-failure.ts';
import type { ClusterReport } from '../src/domain/progress.ts';
import { ClusterRun } from './cluster-run.ts';
import { ClusterStatus } from './cluster-status.ts';
import { step } from './step.ts';
import { readPlan, validate } from './validate-cluster.ts';

/** Moves every database of a cluster that the plan names, each by a child of its own. No input is the same as `{}`. */
export async function migrateCluster(input?: unknown): Promise<ClusterReport> {
  const status = new ClusterStatus();
  const cluster = new ClusterRun(status);
  try {
    const plan = readPlan(input);
    const { servers, databases, refused, searchAttributes } = await validate(plan);
    cluster.begin(plan, databases, refused, searchAttributes);

    const roles = await step('migrateRoles', 'create the roles that the target lacks', {
      plan,
      servers,
      cluster: workflowInfo().workflowId,
    });
    const reports = await cluster.migrateAll(plan, servers, databases);
    return cluster.report(roles, reports);
  } catch (error) {
    status.ended(isCancellation(error) ? 'cancelled' : 'failed');
    throw isCancellation(error) ? error : asOwnFailure(error);
  }
}
