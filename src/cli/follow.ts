import type { Client, WorkflowHandle } from '@temporalio/client';
import { defaultPayloadConverter } from '@temporalio/common';
import type { temporal } from '@temporalio/proto';
import { setTimeout as delay } from 'node:timers/promises';
import { childWorkflowId, MESSAGE } from '../contract.ts';
import type { LaneProgress } from '../domain/migration.ts';
import type { ClusterProgress, DatabaseProgress } from '../domain/progress.ts';
import { LIMITS } from '../domain/limits.ts';
import { shortReason } from '../temporal/connection.ts';
import type { Outcome } from './outcome.ts';
import { outcomeOf } from './outcome.ts';
import type { ProgressOutput } from './view/output.ts';
import type { LiveDatabase } from './view/progress.ts';

export type Followed =
  { ended: Outcome; progress: ClusterProgress | null } | { settled: ClusterProgress } | 'interrupted';

export interface FollowOptions {
  output: ProgressOutput;
  signal: AbortSignal;
  /** Whether there is nothing more to wait for although the migration has not ended. */
  settled: (progress: ClusterProgress) => boolean;
}

/** Shows a migration until it ends, is settled, or `signal` is aborted. A server that is away is waited for. */
export async function follow(client: Client, handle: WorkflowHandle, options: FollowOptions): Promise<Followed> {
  const { output, signal, settled } = options;
  let outcome: Outcome | undefined;
  let broken: Error | undefined;
  const ending = outcomeOf(handle).then(
    (ended) => (outcome = ended),
    (error: unknown) => (broken = error instanceof Error ? error : new Error(String(error))),
  );
  const rates = new Rates();
  let progress: ClusterProgress | null = null;
  let away = false;
  try {
    while (!signal.aborted) {
      try {
        progress = await handle.query<ClusterProgress>(MESSAGE.progress);
        output.show(progress, await lookAtSteps(client, progress, rates));
        if (away) output.note('The Temporal server answers again.');
        away = false;
      } catch (error) {
        if (!away) output.note(`The migration does not answer: ${shortReason(error)}. Waiting for it.`);
        away = true;
      }
      if (outcome !== undefined) return { ended: outcome, progress };
      if (broken !== undefined) throw broken;
      if (!away && progress !== null && settled(progress)) return { settled: progress };
      await Promise.race([ending, delay(LIMITS.followMs, undefined, { signal }).catch(() => undefined)]);
    }
    return 'interrupted';
  } finally {
    output.end();
  }
}

/** Bytes a second of each database, from what its copy lanes say. */
class Rates {
  readonly #before = new Map<string, { bytes: number; at: number }>();

  of(database: string, bytes: number): number | null {
    const now = Date.now();
    const before = this.#before.get(database);
    if (before === undefined || bytes < before.bytes) {
      this.#before.set(database, { bytes, at: now });
      return null;
    }
    return now === before.at ? null : ((bytes - before.bytes) * 1000) / (now - before.at);
  }
}

async function lookAtSteps(client: Client, { id, databases }: ClusterProgress, rates: Rates) {
  const busy = databases.filter(({ phase }) => phase === 'copying' || phase === 'indexing' || phase === 'subscribing');
  const looks = busy.map(async (database): Promise<[string, LiveDatabase]> => {
    const steps = await pendingSteps(client, childWorkflowId(id, database.database));
    return [database.database, liveOf(database, steps, rates)];
  });
  return new Map(await Promise.all(looks));
}

type Step = { name: string; details: Partial<LaneProgress> };

async function pendingSteps(client: Client, workflowId: string): Promise<Step[]> {
  const { raw } = await client.workflow.getHandle(workflowId).describe();
  return (raw.pendingActivities ?? []).map((activity: temporal.api.workflow.v1.IPendingActivityInfo) => {
    const [payload] = activity.heartbeatDetails?.payloads ?? [];
    const details = payload === undefined ? null : defaultPayloadConverter.fromPayload<Step['details'] | null>(payload);
    return { name: activity.activityType?.name ?? '', details: details ?? {} };
  });
}

/** The lanes' own counts are seconds old, the measurement minutes. */
function liveOf(database: DatabaseProgress, steps: readonly Step[], rates: Rates): LiveDatabase {
  const lanes = steps.filter(({ name }) => name === 'copyTables');
  const bytes = lanes.reduce((sum, { details }) => sum + (details.bytes ?? 0), 0);
  database.bytes.copied = Math.min(database.bytes.total, Math.max(database.bytes.copied, bytes));
  const current = steps.map(({ details }) => details.current ?? '').filter((what) => what !== '');
  return { bytesPerSecond: lanes.length === 0 ? null : rates.of(database.database, bytes), current };
}
