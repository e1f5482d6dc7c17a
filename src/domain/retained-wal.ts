import { MigrationError } from './failure.ts';
import { formatBytes } from './format.ts';
import type { Plan } from './plan.ts';

/** What to say when the slots keep much WAL on the source; null: it is not worth a word. `bytes`: null where no slot is. */
export function retainedWalWarning(
  { retainedWal: { warnBytes, maxBytes } }: Plan,
  bytes: number | null,
): string | null {
  if (bytes === null || warnBytes === null || bytes <= warnBytes) return null;
  const end =
    maxBytes === null
      ? 'nothing ends that before its disk is full'
      : `at ${formatBytes(maxBytes)} the migration is undone`;
  return (
    `The slot keeps ${formatBytes(bytes)} of WAL on the source, and ${end}. ` +
    'See that its disk has room, or cancel: the slot is dropped then.'
  );
}

/** The failure to end with, before the slots fill the source's disk; null: there is room, or no limit. */
export function tooMuchRetainedWal({ retainedWal: { maxBytes } }: Plan, bytes: number | null): MigrationError | null {
  if (bytes === null || maxBytes === null || bytes <= maxBytes) return null;
  return new MigrationError(
    'TooMuchWal',
    `The slot kept ${formatBytes(bytes)} of WAL on the source, and the plan allows ${formatBytes(maxBytes)} ("retainedWal.maxBytes").`,
  );
}

/** Whether the next look should come soon. */
export const isNearLimit = ({ retainedWal: { maxBytes } }: Plan, bytes: number | null): boolean =>
  bytes !== null && maxBytes !== null && bytes > maxBytes / 2;
