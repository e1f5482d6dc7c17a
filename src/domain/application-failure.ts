import { ApplicationFailure, TemporalFailure } from '@temporalio/common';
import type { FailureDetails, FailureType } from './failure.ts';
import { FAILURES, MigrationError } from './failure.ts';

/** The one way in which one of our errors enters a history: first line what happened, then what to do. */
export function toApplicationFailure(error: MigrationError, moreDetails: unknown[] = []): ApplicationFailure {
  const failure = ApplicationFailure.create({
    type: error.type,
    message: `${error.message}${error.message.endsWith('\n') ? '' : ' '}${error.details.next}`.trim(),
    nonRetryable: !error.retryable,
    details: [error.details, ...moreDetails],
  });
  // A trace of our own code says nothing to who reads the history.
  failure.stack = '';
  return failure;
}

/** What a workflow ends with: the sentence of the step that failed, not "Activity task failed". A bug stays a bug. */
export function asOwnFailure(error: unknown): unknown {
  if (error instanceof ApplicationFailure || !(error instanceof TemporalFailure)) return error;
  const { type, message, details } = readFailure(error);
  return toApplicationFailure(new MigrationError(type === 'Unknown' ? 'ServerError' : type, message, details ?? {}));
}

export interface ReadFailure {
  type: FailureType | 'Unknown';
  /** What happened; what to do is in `details.next`. */
  message: string;
  details: FailureDetails | null;
}

/** Reads a failure back, wherever in the chain of causes (activity, child workflow) it lies. */
export function readFailure(error: unknown): ReadFailure {
  for (let cause: unknown = error; cause instanceof Error; cause = cause.cause) {
    if (cause instanceof ApplicationFailure) {
      const { type, message } = cause;
      if (type === undefined || type === null || !(type in FAILURES))
        return { type: 'Unknown', message, details: null };
      const details = (cause.details?.[0] ?? null) as FailureDetails | null;
      return { type: type as FailureType, message: withoutNext(message, details?.next ?? ''), details };
    }
    if (cause instanceof MigrationError) return { type: cause.type, message: cause.message, details: cause.details };
  }
  return { type: 'Unknown', message: deepestMessage(error), details: null };
}

const withoutNext = (message: string, next: string): string =>
  next !== '' && message.endsWith(next) ? message.slice(0, -next.length).trimEnd() : message;

function deepestMessage(error: unknown): string {
  let message = String(error);
  for (let cause: unknown = error; cause instanceof Error; cause = cause.cause) message = cause.message;
  return message;
}
