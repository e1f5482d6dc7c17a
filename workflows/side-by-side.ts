import { CancellationScope, isCancellation } from '@temporalio/workflow';

type Results<Parts extends readonly (() => Promise<unknown>)[]> = {
  -readonly [Index in keyof Parts]: Awaited<ReturnType<Parts[Index]>>;
};

/**
 * All at once. When one fails for good the others are cancelled, since they may wait for what will never come, and waited
 * for.
 */
export async function sideBySide<Parts extends readonly (() => Promise<unknown>)[]>(
  ...parts: Parts
): Promise<Results<Parts>> {
  const scope = new CancellationScope();
  const outcomes = await scope.run(() =>
    Promise.allSettled(
      parts.map((part) =>
        part().catch((error: unknown) => {
          scope.cancel();
          throw error;
        }),
      ),
    ),
  );
  const reasons = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason as unknown] : []));
  // The failure, not the cancellation that followed from it.
  if (reasons.length > 0) throw reasons.find((reason) => !isCancellation(reason)) ?? reasons[0];
  return outcomes.map((outcome) => (outcome as PromiseFulfilledResult<unknown>).value) as Results<Parts>;
}
