import { LIMITS } from '../domain/limits.ts';
import type { Session } from './connection.ts';
import { displayName, quoteName } from './identifier.ts';
import { sqlstateOf, toMigrationError } from './sqlstate.ts';

interface Table {
  schema: string;
  name: string;
}

/**
 * Analyzes every table and materialized view that never was. Without statistics the first queries after a cutover get
 * bad plans, but a table that cannot be analyzed is no reason not to end. Returns a warning for each of those.
 */
export async function analyzeTables(target: Session, onProgress: (table: string) => void): Promise<string[]> {
  const tables = await readNeverAnalyzed(target);
  const warnings: string[] = [];
  for (let i = 0; i < tables.length; i += LIMITS.tinyTablesPerBatch) {
    const batch = tables.slice(i, i + LIMITS.tinyTablesPerBatch);
    const [first] = batch;
    if (first !== undefined) onProgress(displayName(first.schema, first.name));
    if ((await tryAnalyze(target, batch)) === null) continue;
    for (const table of batch) {
      const reason = await tryAnalyze(target, [table]);
      if (reason !== null) warnings.push(`${displayName(table.schema, table.name)} could not be analyzed: ${reason}.`);
    }
  }
  return warnings;
}

const readNeverAnalyzed = (target: Session): Promise<Table[]> =>
  target.query<Table>(
    `SELECT s.nspname AS schema, c.relname AS name FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace
      WHERE c.relkind IN ('r', 'p', 'm') AND c.relpersistence <> 't' AND (c.relkind <> 'm' OR c.relispopulated)
        AND s.nspname !~ '^pg_' AND s.nspname NOT IN ('information_schema', 'pgtransit')
        AND pg_stat_get_last_analyze_time(c.oid) IS NULL AND pg_stat_get_last_autoanalyze_time(c.oid) IS NULL
      ORDER BY c.relkind = 'p', c.oid`,
  );

/** A list of tables is one round trip, and each table still is a transaction of its own. */
async function tryAnalyze(target: Session, tables: readonly Table[]): Promise<string | null> {
  // Analyzing a partitioned table would analyze all its partitions once more; ONLY came with 18.
  const only = target.version >= 180000 ? 'ONLY ' : '';
  try {
    await target.query(`ANALYZE ${tables.map(({ schema, name }) => only + quoteName(schema, name)).join(', ')}`);
    return null;
  } catch (error) {
    // An error with an SQLSTATE came from the server, even "cannot connect": that is a foreign partition's server.
    const sqlstate = sqlstateOf(error);
    if (sqlstate === null || sqlstate.startsWith('57P'))
      throw toMigrationError(error, { server: 'target', doing: 'analyzing' });
    return error instanceof Error ? (error.message.split('\n')[0] ?? '') : '';
  }
}
