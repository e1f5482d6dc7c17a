import { formatBytes } from '../../domain/format.ts';
import type { DatabaseProgress } from '../../domain/progress.ts';

export function formatSeconds(seconds: number): string {
  if (seconds < 59.95) return `${Math.round(seconds * 10) / 10} s`;
  const whole = Math.round(seconds);
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min ${whole % 60} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** Whether its rows are on their way. From `indexing` on all are there, also when the last measurement is older. */
export const isCopying = ({ phase }: DatabaseProgress): boolean => phase === 'copying';

export const describeTables = ({ tables }: DatabaseProgress): string => `${tables.copied} of ${tables.total} tables`;

export const describeBytes = ({ bytes }: Pick<DatabaseProgress, 'bytes'>): string =>
  `${formatBytes(bytes.copied)} of ${formatBytes(bytes.total)}`;

export const describeLag = ({ lagBytes }: DatabaseProgress): string =>
  lagBytes === null ? '' : `${formatBytes(lagBytes)} behind`;

/** Rate and time left; the time is a guess, since bytes on the way and bytes in a table are not the same. */
export function describeRate({ bytes }: DatabaseProgress, bytesPerSecond: number | null): string[] {
  if (bytesPerSecond === null || bytesPerSecond < 1) return [];
  const left = bytes.total - bytes.copied;
  const rate = `${formatBytes(Math.round(bytesPerSecond))}/s`;
  return left > 0 ? [rate, `about ${formatSeconds(Math.ceil(left / bytesPerSecond))} left`] : [rate];
}
