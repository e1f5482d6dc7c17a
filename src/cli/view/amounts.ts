import { formatBytes } from '../../domain/format.ts';
import type { DatabaseProgress } from '../../domain/progress.ts';

export const formatSeconds = (seconds: number): string => {
  if (seconds < 60) return `${Math.round(seconds * 10) / 10} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.round(seconds % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
};

/** What is known of a database's amounts in its phase, in words. */
export function describeAmounts({ phase, tables, bytes, lagBytes }: DatabaseProgress): string {
  const copied = `${tables.copied} of ${tables.total} tables, ${formatBytes(bytes.copied)} of ${formatBytes(bytes.total)}`;
  if (phase === 'copying' || phase === 'indexing') return copied;
  return lagBytes === null ? '' : `${formatBytes(lagBytes)} behind`;
}
