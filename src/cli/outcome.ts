import type { WorkflowHandle } from '@temporalio/client';
import { WorkflowFailedError } from '@temporalio/client';
import { ApplicationFailure, CancelledFailure, TerminatedFailure } from '@temporalio/common';
import { readFailure } from '../domain/application-failure.ts';
import type { Finding } from '../domain/finding.ts';
import type { ClusterReport } from '../domain/progress.ts';

/** How a migration ended. */
export interface Outcome {
  status: 'done' | 'failed' | 'cancelled' | 'terminated';
  /** What happened and what to do; empty when it is done. */
  message: string;
  /** Null when it ended before there was one. */
  report: ClusterReport | null;
  /** When validation refused it. */
  findings: Finding[] | null;
}

/** Waits for the end of a migration, and reads it. */
export async function outcomeOf(handle: WorkflowHandle): Promise<Outcome> {
  const end = await endOf<ClusterReport>(handle);
  return 'result' in end ? { status: 'done', message: '', report: end.result, findings: null } : end.failure;
}

/** The same for any workflow: its result, or how it failed. */
export async function endOf<Result>(handle: WorkflowHandle): Promise<{ result: Result } | { failure: Outcome }> {
  try {
    return { result: (await handle.result()) as Result };
  } catch (error) {
    if (!(error instanceof WorkflowFailedError)) throw error;
    return { failure: failedOutcome(error.cause) };
  }
}

function failedOutcome(cause: Error | undefined): Outcome {
  const none = { report: null, findings: null };
  if (cause instanceof CancelledFailure)
    return {
      status: 'cancelled',
      message: 'It was cancelled, and what was made on the source is undone. What had been cut over by then stays so.',
      ...none,
    };
  if (cause instanceof TerminatedFailure)
    return {
      status: 'terminated',
      message: 'It was terminated, so nothing was undone. `pgtransit cleanup` shows what it left on the servers.',
      ...none,
    };
  const { type, message, details } = readFailure(cause);
  const more: unknown = cause instanceof ApplicationFailure ? cause.details?.[1] : undefined;
  return {
    status: 'failed',
    message: [message.trim(), details?.next ?? ''].join('\n').trim(),
    report: type === 'DatabasesFailed' ? ((more ?? null) as ClusterReport | null) : null,
    findings: type === 'ValidationFailed' && Array.isArray(more) ? (more as Finding[]) : null,
  };
}
