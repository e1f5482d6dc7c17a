import type { Client, WorkflowExecutionStatusName } from '@temporalio/client';
import { WorkflowNotFoundError } from '@temporalio/common';
import { WORKFLOW } from '../contract.ts';

export interface FoundMigration {
  id: string;
  status: WorkflowExecutionStatusName;
  taskQueue: string;
  startedAt: Date;
  closedAt: Date | null;
}

/** The latest run of a workflow id; null when there is none. */
export async function findMigration(client: Client, id: string): Promise<FoundMigration | null> {
  try {
    const { workflowId, status, taskQueue, startTime, closeTime } = await client.workflow.getHandle(id).describe();
    return { id: workflowId, status: status.name, taskQueue, startedAt: startTime, closedAt: closeTime ?? null };
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) return null;
    throw error;
  }
}

/** All migrations that the server knows, the newest first. */
export async function listMigrations(client: Client, onlyOpen: boolean): Promise<FoundMigration[]> {
  const open = onlyOpen ? " AND ExecutionStatus = 'Running'" : '';
  const found: FoundMigration[] = [];
  for await (const { workflowId, status, taskQueue, startTime, closeTime } of client.workflow.list({
    query: `WorkflowType = '${WORKFLOW.migrateCluster}'${open}`,
  }))
    found.push({ id: workflowId, status: status.name, taskQueue, startedAt: startTime, closedAt: closeTime ?? null });
  return found.sort((a, b) => b.startedAt.getTime() - a.startedAt.getTime());
}

/**
 * The migration that a command is about: the named one, else the only open one.
 * @throws Error with one sentence
 */
export async function selectMigration(client: Client, id: string | undefined): Promise<FoundMigration> {
  if (id !== undefined) {
    const found = await findMigration(client, id);
    if (found !== null) return found;
    throw new Error(`There is no migration ${id}. \`pgtransit list\` shows those that there are.`);
  }
  const open = await listMigrations(client, true);
  const [only] = open;
  if (only === undefined) throw new Error('No migration is open. `pgtransit list` shows those that have ended.');
  if (open.length > 1) throw new Error(`Which one? Open are ${open.map((migration) => migration.id).join(', ')}.`);
  return only;
}
