import type { Context } from '@temporalio/activity';
import { ApplicationFailure, CancelledFailure } from '@temporalio/common';
import type { ActivityInboundCallsInterceptor } from '@temporalio/worker';
import { toApplicationFailure } from '../domain/application-failure.ts';
import { MigrationError } from '../domain/failure.ts';
import type { Secrets } from './secrets.ts';

/** Every error of a step enters the history here: as a sentence, without stack and without secrets. */
export const errorInterceptor = (context: Context, secrets: Secrets): ActivityInboundCallsInterceptor => ({
  async execute(input, next) {
    try {
      return await next(input);
    } catch (error) {
      throw asFailure(error, context.cancellationSignal, secrets);
    }
  },
});

/**
 * Once a step was told to end, whatever it throws is a consequence (its sessions are cut off), or is found again by
 * the attempt that follows a shutdown. Saying anything but "cancelled" would make the workflow handle a failure.
 */
export function asFailure(error: unknown, signal: AbortSignal, secrets: Secrets): Error {
  const cancelled = error instanceof CancelledFailure ? error : signal.aborted ? (signal.reason as unknown) : null;
  if (cancelled instanceof CancelledFailure)
    return new CancelledFailure(cancelled.message, secrets.maskAll(cancelled.details));
  if (signal.aborted) return new CancelledFailure('cancelled');
  const failure = error instanceof ApplicationFailure ? error : toFailure(error);
  const clean = ApplicationFailure.create({
    message: secrets.mask(failure.message),
    nonRetryable: failure.nonRetryable ?? false,
    details: secrets.maskAll(failure.details ?? []),
    ...(failure.type ? { type: failure.type } : {}),
    ...(failure.nextRetryDelay === undefined || failure.nextRetryDelay === null
      ? {}
      : { nextRetryDelay: failure.nextRetryDelay }),
  });
  // A trace of compiled code helps nobody who reads a history, and goes into it for good.
  clean.stack = '';
  return clean;
}

/** An error that nobody mapped is a bug, or a world that we did not think of: a person must look, not a retry. */
function toFailure(error: unknown): ApplicationFailure {
  if (error instanceof MigrationError) return toApplicationFailure(error);
  const message = error instanceof Error ? error.message : String(error);
  return ApplicationFailure.create({
    type: 'Unknown',
    message: message || 'An error without a message.',
    nonRetryable: true,
  });
}
