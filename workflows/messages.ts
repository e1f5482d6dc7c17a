import { defineQuery, defineSignal, defineUpdate } from '@temporalio/workflow';
import type { CompleteRequest, ResolveRequest, RollbackRequest, StopRequest, Word } from '../src/contract.ts';
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

/** What the parent asks a child: `round` numbers a cutover of several databases together. */
export type StopOrder = StopRequest & { round?: number };

/** `ready`: to put up its fence; `drained`: to open the target; `put-back`: it could not, or may not. */
export interface CutoverVote {
  database: string;
  round: number;
  vote: 'ready' | 'drained' | 'put-back';
  reason: string;
}

export interface CutoverDecision {
  round: number;
  decision: 'fence' | 'open' | 'put-back';
  reason: string;
}

export const stopReplicationSignal = defineSignal<[request: StopOrder | undefined]>(MESSAGE.stopReplication);
export const stopReplicationUpdate = defineUpdate<Phases, [request: StopRequest | undefined]>(MESSAGE.stopReplication);
export const resolveUpdate = defineUpdate<string, [ResolveRequest]>(MESSAGE.resolve);
/** How the parent passes `resolve` on: a workflow cannot send an update to another. */
export const resolveSignal = defineSignal<[ResolveRequest]>(MESSAGE.resolve);
export const fencedUpdate = defineUpdate<string, [Word]>(MESSAGE.fenced);
export const fencedSignal = defineSignal<[Word]>(MESSAGE.fenced);
export const switchedUpdate = defineUpdate<string, [Word]>(MESSAGE.switched);
export const switchedSignal = defineSignal<[Word]>(MESSAGE.switched);
export const rollbackUpdate = defineUpdate<string, [request: RollbackRequest | undefined]>(MESSAGE.rollback);
export const rollbackSignal = defineSignal<[RollbackRequest]>(MESSAGE.rollback);
export const completeUpdate = defineUpdate<string, [request: CompleteRequest | undefined]>(MESSAGE.complete);
export const completeSignal = defineSignal<[CompleteRequest]>(MESSAGE.complete);
export const cutoverVoteSignal = defineSignal<[CutoverVote]>(MESSAGE.cutoverVote);
export const cutoverDecisionSignal = defineSignal<[CutoverDecision]>(MESSAGE.cutoverDecision);
export const rehearseUpdate = defineUpdate<Rehearsal, []>(MESSAGE.rehearse);
export const clusterProgressQuery = defineQuery<ClusterProgress>(MESSAGE.progress);
export const databaseProgressQuery = defineQuery<DatabaseProgress>(MESSAGE.progress);
export const databaseProgressSignal = defineSignal<[news: DatabaseNews]>(MESSAGE.databaseProgress);

/** What the Web UI's "send" dialogs say. */
export const DESCRIPTION = {
  stopReplication:
    'Cut over: wait until the target has everything, carry the sequences over, end the replication. ' +
    'Input: {} for all databases, or {"databases": ["shop"], "reason": "…"}. Stop the application\'s writes first, ' +
    'unless there is a fence (of the plan, or "fence"): then "deadlineSeconds" says how long writers may be kept out before ' +
    'it is put back. "notBefore": a time to wait for; "together": all databases or none.',
  fenced:
    'Say that writers are kept out of the source, which a stop with the fence "external" waits for. Input: {"by": "…"}.',
  switched: 'Say that the clients are led to the target, which the end of the cutover waits for. Input: {"by": "…"}.',
  rollback:
    'Go back to the source, while it follows the target: fence the target, drain, carry the sequences back, let writers in ' +
    'on the source. Input: {} or {"database": "shop", "reason": "…", "deadlineSeconds": 60}.',
  complete:
    'Stay on the target: the point of no return. Ends the replication back to the source. Input: {} or {"database": "shop"}.',
  resolve:
    'Answer a migration that waits for you. Input: {"database": "shop", "action": "retry"}; the action is retry, ' +
    'skip (only for steps that may be left out) or abort.',
  rehearse:
    'Do what a stop does, but for the fence and for whatever it changes, and answer how long each step takes. ' +
    'While the database streams; no input.',
  internal: 'Sent by pgtransit itself, between the workflows of one migration.',
  progress: 'Phase, lag and amounts of each database, as last measured.',
} as const;
