import type { ClusterProgress, DatabaseProgress } from '../../domain/progress.ts';
import { shellQuote } from '../../preflight/shell.ts';
import { plain } from './text.ts';

/** The command that answers a parked database, and what else it takes; null when there is nothing to answer. */
export function answerCommand(
  id: string,
  { database, answers }: DatabaseProgress,
): { command: string; others: string } | null {
  const [first, ...others] = answers;
  if (first === undefined) return null;
  return {
    command: `pgtransit resolve ${first} ${shellQuote(plain(id))}${only(database)}`,
    others: others.length === 0 ? '' : `(or ${others.join(', ')})`,
  };
}

/** What the person who looks can do for the migration as a whole. */
export function nextStep({ id, databases }: ClusterProgress): string[] {
  if (!databases.some(({ phase, attention }) => phase === 'streaming' && attention === null)) return [];
  return ['To cut over: stop the writes to the source, then', `  pgtransit stop ${shellQuote(plain(id))}`];
}

/** A name that cannot be shown cannot be pasted either; then the answer is for all that wait. */
const only = (database: string): string => (plain(database) === database ? ` --database ${shellQuote(database)}` : '');
