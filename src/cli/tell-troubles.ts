import type { Client } from '@temporalio/client';
import { setTimeout as delay } from 'node:timers/promises';
import { LIMITS } from '../domain/limits.ts';
import { pendingSteps } from './pending-steps.ts';
import { liveOf } from './view/live.ts';
import { troubles } from './view/summary.ts';

/**
 * Says until `signal` is aborted what keeps the steps of a workflow that has no progress to follow, each sentence once.
 * A Temporal server that does not answer is not its business: whoever waits for the end says that.
 */
export async function tellTroubles(
  client: Client,
  workflowId: string,
  signal: AbortSignal,
  say: (sentence: string) => void,
): Promise<void> {
  const told = new Set<string>();
  while (!signal.aborted) {
    const steps = await pendingSteps(client, workflowId).catch(() => []);
    for (const sentence of troubles(liveOf(steps, null))) {
      if (!told.has(sentence)) say(`! ${sentence}`);
      told.add(sentence);
    }
    await delay(LIMITS.followMs, undefined, { signal }).catch(() => undefined);
  }
}
