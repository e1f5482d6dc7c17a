import { LEDGER_SCHEMA } from '../contract.ts';
import type { Session } from './connection.ts';
import { displayName, quoteName } from './identifier.ts';
import { runSteps } from './script.ts';
import { toMigrationError } from './sqlstate.ts';

interface EntryStep {
  position: number;
  label: string;
  sql: string;
}

const failed =
  (tables: string) =>
  (error: unknown, step: { label: string } | undefined): Error => {
    const what = step?.label ?? tables;
    const doing = `building ${what}${what.includes(tables) ? '' : ` of ${tables}`}`;
    return toMigrationError(error, { server: 'target', doing, object: what, otherwise: 'IndexFailed' });
  };

/** Builds one index and marks its entry, inside the caller's transaction. An entry that is already done is left alone. */
export async function buildIndex(
  target: Session,
  position: number,
  table: { schema: string; name: string },
): Promise<void> {
  const steps = await target.query<EntryStep>(
    `SELECT position, label, sql FROM ${LEDGER_SCHEMA}.entry WHERE position = $1 AND state = 'todo' FOR UPDATE`,
    [position],
  );
  await runSteps(target, steps, failed(displayName(table.schema, table.name)));
  await markEntries(target, steps);
}

/**
 * Finishes tables whose indexes are there: keys and constraints one after the other (two at once on one table deadlock),
 * then ANALYZE. With `indexes`, builds those too: for tiny tables, whose whole life is one transaction.
 */
export async function finishTables(
  target: Session,
  tables: readonly { relation: number; schema: string; name: string }[],
  indexes: boolean,
): Promise<void> {
  const steps = await target.query<EntryStep>(
    `SELECT position, label, sql FROM ${LEDGER_SCHEMA}.entry
      WHERE relation = ANY ($1) AND stage = ANY ($2) AND state = 'todo' ORDER BY stage, position FOR UPDATE`,
    [tables.map(({ relation }) => relation), indexes ? ['index', 'key'] : ['key']],
  );
  const names = tables.map(({ schema, name }) => displayName(schema, name));
  const analyze = {
    label: `statistics of ${names[0] ?? ''}${names.length > 1 ? ` and ${names.length - 1} more` : ''}`,
    sql: `ANALYZE ${tables.map(({ schema, name }) => quoteName(schema, name)).join(', ')}`,
  };
  await runSteps(target, [...steps, analyze], failed(names.length === 1 ? (names[0] ?? '') : `${names.length} tables`));
  await markEntries(target, steps);
}

async function markEntries(target: Session, steps: readonly EntryStep[]): Promise<void> {
  await target.query(`UPDATE ${LEDGER_SCHEMA}.entry SET state = 'done' WHERE position = ANY ($1)`, [
    steps.map(({ position }) => position),
  ]);
}
