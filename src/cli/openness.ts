import type { Client, WorkflowExecutionDescription } from '@temporalio/client';
import { WorkflowNotFoundError } from '@temporalio/common';
import { WORKFLOW } from '../contract.ts';
import { migrationId } from '../domain/migration-id.ts';

/** Whether the workflow of one database's migration still runs. `text` is for the operator: how it ended, or what to do. */
export interface Openness {
  state: 'open' | 'ended' | 'unknown';
  workflowId: string | null;
  text: string;
}

/**
 * Asks Temporal about migrations by their 12 hex digits. A ledger's workflow id saves the search for it. What Temporal
 * does not know is `unknown`: it may run in another namespace, or on another server.
 */
export async function askOpenness(
  client: Client,
  ledgers: ReadonlyMap<string, string | null>,
): Promise<Map<string, Openness>> {
  const nameless = [...ledgers].filter(([, workflowId]) => workflowId === null).map(([id]) => id);
  const searched = nameless.length === 0 ? new Map<string, string>() : await searchWorkflows(client, new Set(nameless));
  const answers = new Map<string, Openness>();
  for (const [id, workflowId] of ledgers)
    answers.set(id, await ask(client, id, workflowId ?? searched.get(id) ?? null));
  return answers;
}

async function ask(client: Client, id: string, workflowId: string | null): Promise<Openness> {
  const found = workflowId === null ? null : await describe(client, workflowId);
  if (workflowId === null || found === null) {
    const text = `This Temporal server (namespace "${client.options.namespace}") does not know its workflow.`;
    return { state: 'unknown', workflowId, text };
  }
  const first = firstRunOf(found);
  // A workflow id has one open run at most. Where the server does not say which one it is, it is taken for this one.
  if (found.status.name === 'RUNNING' && (first === null || migrationId(workflowId, first) === id))
    return { state: 'open', workflowId, text: await howToEnd(client, found) };
  const isThisRun = first !== null && migrationId(workflowId, first) === id;
  const status = isThisRun ? found.status.name.toLowerCase().replaceAll('_', ' ') : 'ended, and run again since';
  return { state: 'ended', workflowId, text: status };
}

async function describe(client: Client, workflowId: string): Promise<WorkflowExecutionDescription | null> {
  try {
    return await client.workflow.getHandle(workflowId).describe();
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) return null;
    throw error;
  }
}

const firstRunOf = ({ raw }: WorkflowExecutionDescription): string | null =>
  raw.workflowExecutionInfo?.firstRunId || null;

/** Workflow ids of these migrations, of all that Temporal still lists. */
async function searchWorkflows(client: Client, ids: ReadonlySet<string>): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  const query = `WorkflowType = '${WORKFLOW.migrateDatabase}'`;
  for await (const { workflowId, runId, status } of client.workflow.list({ query })) {
    found.set(migrationId(workflowId, runId), workflowId);
    // One that streams for weeks goes on in new runs, and its first one may no longer be listed.
    const described = status.name === 'RUNNING' ? await describe(client, workflowId) : null;
    const first = described === null ? null : firstRunOf(described);
    if (first !== null) found.set(migrationId(workflowId, first), workflowId);
  }
  return new Map([...found].filter(([id]) => ids.has(id)));
}

async function howToEnd(client: Client, { workflowId, taskQueue, raw }: WorkflowExecutionDescription): Promise<string> {
  const parentId = raw.workflowExecutionInfo?.parentExecution?.workflowId ?? null;
  const parent = parentId === null ? null : await describe(client, parentId);
  return parentId !== null && parent?.status.name === 'RUNNING'
    ? `It is open. To undo it: pgtransit cancel ${parentId}`
    : `It is open, though its parent has ended, and undoes itself when a worker serves task queue ${taskQueue}. If none ` +
        `ever will: temporal workflow terminate -w '${workflowId}', then this once more.`;
}
