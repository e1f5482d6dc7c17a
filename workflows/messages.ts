import { defineQuery, defineSignal, defineUpdate } from '@temporalio/workflow';
import type { ResolveRequest, StopRequest } from '../src/contract.ts';
import { MESSAGE } from '../src/contract.ts';
import type { ClusterProgress, DatabaseProgress } from '../src/domain/progress.ts';
import type { Phase } from '../src/domain/phase.ts';
import type { Rehearsal } from '../src/domain/readiness.ts';

/** The phase of each database, as last known. */
export type Phases = Record<string, Phase>;

/** Temporal may deliver signals of one sender in another order than they were sent, so each has a number. */
export interface DatabaseNews {
  number: number;
  progress: DatabaseProgress;
  /** How many answers of the parent had arrived: news from before one still says that it is waited for. */
  answersHeard: number;
}

export const stopReplicationSignal = defineSignal<[request: StopRequest | undefined]>(MESSAGE.stopReplication);
export const stopReplicationUpdate = defineUpdate<Phases, [request: StopRequest | undefined]>(MESSAGE.stopReplication);
export const resolveUpdate = defineUpdate<string, [ResolveRequest]>(MESSAGE.resolve);
/** How the parent passes `resolve` on: a workflow cannot send an update to another. */
export const resolveSignal = defineSignal<[ResolveRequest]>(MESSAGE.resolve);
export const rehearseUpdate = defineUpdate<Rehearsal, []>(MESSAGE.rehearse);
export const clusterProgressQuery = defineQuery<ClusterProgress>(MESSAGE.progress);
export const databaseProgressQuery = defineQuery<DatabaseProgress>(MESSAGE.progress);
export const databaseProgressSignal = defineSignal<[news: DatabaseNews]>(MESSAGE.databaseProgress);

/** What the Web UI's "send" dialogs say. */
export const DESCRIPTION = {
  stopReplication:
    'Cut over: wait until the target has everything, carry the sequences over, end the replication. ' +
    'Input: {} for all databases, or {"databases": ["shop"], "reason": "…"}. Stop the application\'s writes first, ' +
    'unless the plan has a fence: then "deadlineSeconds" says how long writers may be kept out before it is put back.',
  resolve:
    'Answer a migration that waits for you. Input: {"database": "shop", "action": "retry"}; the action is retry, ' +
    'skip (only for steps that may be left out) or abort.',
  rehearse:
    'Do what a stop does, but for the fence and for whatever it changes, and answer how long each step takes. ' +
    'While the database streams; no input.',
  internal: 'Sent by pgtransit itself, between the workflows of one migration.',
  progress: 'Phase, lag and amounts of each database, as last measured.',
} as const;

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const isDeadline = (value: unknown): boolean =>
  typeof value === 'number' && Number.isInteger(value) && value >= 1 && value <= 86_400;

/** What is wrong with a stop request, as a sentence; null when nothing is. */
export function stopRequestProblem(request: unknown, known: readonly string[] | null): string | null {
  if (request === undefined || request === null) return null;
  if (!isRecord(request))
    return 'stopReplication takes one JSON object, e.g. {"databases": ["shop"], "reason": "cutover"}.';
  const unknownField = Object.keys(request).find((key) => !['databases', 'reason', 'deadlineSeconds'].includes(key));
  if (unknownField !== undefined) return `stopReplication has no field "${unknownField}".`;
  const { databases, reason, deadlineSeconds } = request;
  if (deadlineSeconds !== undefined && !isDeadline(deadlineSeconds))
    return 'The field "deadlineSeconds" of stopReplication must be a whole number from 1 to 86400.';
  if (reason !== undefined && typeof reason !== 'string')
    return 'The field "reason" of stopReplication must be a text.';
  if (databases === undefined) return null;
  if (!Array.isArray(databases) || !databases.every((name) => typeof name === 'string'))
    return 'The field "databases" of stopReplication must be a list of names.';
  const stranger = known === null ? undefined : databases.find((name) => !known.includes(name));
  return stranger === undefined ? null : `This migration has no database "${stranger}".`;
}

export function resolveRequestProblem(request: unknown): string | null {
  const usage = 'resolve takes {"action": "retry", "skip" or "abort", "database": optional}.';
  if (!isRecord(request)) return usage;
  const { action, database } = request;
  if (action !== 'retry' && action !== 'skip' && action !== 'abort') return usage;
  return database !== undefined && typeof database !== 'string' ? usage : null;
}
