import type { PostgresServer } from '../lab/postgres-server.ts';

/** One line for each table with its rows, each index and each constraint, with whether they are valid. */
export type Contents = readonly string[];

/** Bookkeeping of the tools that are measured. */
const NOT_OURS = `n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pgtransit', 'pgcopydb')`;

/** What somebody who was promised a consistent database would look at. NOT NULL is a constraint from 18 on only. */
export async function readContents(server: PostgresServer, database: string): Promise<Contents> {
  const lines = await server.psql(
    database,
    `SET search_path = '';
     SELECT format('SELECT %L || count(*) || '' rows'' FROM ONLY %I.%I', 'table ' || c.relname || ': ', n.nspname, c.relname)
       FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND ${NOT_OURS} \\gexec
     SELECT format('%s%s', pg_get_indexdef(i.indexrelid), CASE WHEN i.indisvalid AND i.indisready THEN '' ELSE ' (not valid)' END)
       FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE ${NOT_OURS};
     SELECT format('constraint %s of %s: %s', k.conname, c.relname, pg_get_constraintdef(k.oid))
       FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE k.contype IN ('p', 'u', 'f', 'c', 'x') AND ${NOT_OURS};`,
  );
  return lines
    .split('\n')
    .filter((line) => line !== '')
    .sort();
}

/** What differs, as a sentence; null when nothing does. */
export function differenceBetween(source: Contents, target: Contents): string | null {
  const [there, here] = [new Set(source), new Set(target)];
  const missing = source.filter((line) => !here.has(line));
  const foreign = target.filter((line) => !there.has(line));
  if (missing.length + foreign.length === 0) return null;
  const some = (lines: readonly string[]): string =>
    `${lines.slice(0, 3).join('; ')}${lines.length > 3 ? ` and ${lines.length - 3} more` : ''}`;
  const sentences = [
    missing.length > 0 ? `The target lacks: ${some(missing)}.` : '',
    foreign.length > 0 ? `The target has instead: ${some(foreign)}.` : '',
  ];
  return sentences.filter((sentence) => sentence !== '').join(' ');
}
