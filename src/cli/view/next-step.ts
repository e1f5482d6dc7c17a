import type { Phase } from '../../domain/phase.ts';
import type { ClusterProgress, DatabaseProgress } from '../../domain/progress.ts';
import { shellQuote } from '../../preflight/shell.ts';
import { plain } from './text.ts';

/** The command that a database waits for, and what else it takes; null when it waits for none. */
export function answerCommand(
  id: string,
  { database, answers, waitsFor }: DatabaseProgress,
): { command: string; others: string } | null {
  const [first, ...others] = answers;
  if (first === undefined && waitsFor !== null)
    return { command: `pgtransit ${waitsFor} ${shellQuote(plain(id))}${only(database)} --by NAME`, others: '' };
  if (first === undefined) return null;
  return {
    command: `pgtransit resolve ${first} ${shellQuote(plain(id))}${only(database)}`,
    others: others.length === 0 ? '' : `(or ${others.join(', ')})`,
  };
}

/** What the person who looks can do for the migration as a whole. */
export function nextStep({ id, databases }: ClusterProgress): string[] {
  const isQuiet = (wanted: Phase) => databases.some(({ phase, attention }) => phase === wanted && attention === null);
  const run = (command: string) => `  pgtransit ${command} ${shellQuote(plain(id))}`;
  if (isQuiet('streaming')) return ['To cut over (without a fence: stop the writes to the source first):', run('stop')];
  if (isQuiet('reversing'))
    return ['The target serves. To go back to the source, or to let it go:', run('rollback'), run('complete')];
  return [];
}

/** A name that cannot be shown cannot be pasted either; then the answer is for all that wait. */
const only = (database: string): string => (plain(database) === database ? ` --database ${shellQuote(database)}` : '');
