import type { Client } from '@temporalio/client';

/** The number of events of a workflow's history, and every text in it, payloads decoded: as anybody can read it. */
export async function readHistory(client: Client, workflowId: string): Promise<{ events: number; text: string }> {
  const { events } = await client.workflow.getHandle(workflowId).fetchHistory();
  return { events: events?.length ?? 0, text: JSON.stringify(decoded(events ?? [])) };
}

function decoded(value: unknown): unknown {
  if (value instanceof Uint8Array) return Buffer.from(value).toString('utf8');
  if (Array.isArray(value)) return value.map(decoded);
  if (typeof value === 'object' && value !== null)
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, decoded(inner)]));
  return value;
}
