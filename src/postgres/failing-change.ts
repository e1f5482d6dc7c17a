import { LIMITS } from '../domain/limits.ts';
import type { Session } from './connection.ts';
import { displayName, quoteIdent, quoteName } from './identifier.ts';
import { lsnNumber } from './lag.ts';
import type { StreamChange, StreamRelation, StreamTransaction, Value } from './pgoutput.ts';
import { readTransactions } from './pgoutput.ts';
import { redact, sqlstateOf } from './sqlstate.ts';
import { appliedLsn, subscribedPublications } from './subscription.ts';
import { refusalOfTruncate } from './truncate-refusal.ts';

export interface FailingChange {
  /** The tables that its transaction changes, or the one of the change that was found to fail. */
  tables: string[];
  /** What the target says to the change, as a sentence; null when it could not be tried, or did not fail. */
  reason: string | null;
}

/**
 * What an apply worker that has stopped gets next. The server tells its error to its log only, so the change is taken from
 * the slot, which nobody reads until the worker is started again, and tried here, in a transaction that is rolled back.
 * Null when the slot is being read, or the change cannot be had in `LIMITS.peekFailingMs`.
 */
export async function readFailingChange(source: Session, target: Session, name: string): Promise<FailingChange | null> {
  const applied = await appliedLsn(target, name);
  const messages = await peek(source, name, await subscribedPublications(target, name));
  const next = readTransactions(messages ?? []).find(
    ({ commitLsn, changes }) => commitLsn >= lsnNumber(applied ?? '0/0') && changes.length > 0,
  );
  // What is perhaps applied already is no reason to blame its tables.
  if (next === undefined || applied === null) return null;
  const failing = await tryChanges(target, next);
  // Applied after all, by a worker that was started meanwhile: then it was in its own way.
  if ((await appliedLsn(target, name)) !== applied) return null;
  return failing ?? { tables: [...new Set(next.changes.flatMap(tablesOf))], reason: null };
}

/** Tables that are changed by what a slot still has after `lsn`; not all, where that is much. */
export async function tablesAfter(
  source: Session,
  name: string,
  publications: readonly string[],
  lsn: string,
): Promise<string[]> {
  const transactions = readTransactions((await peek(source, name, publications)) ?? []);
  const after = transactions.filter(({ commitLsn }) => commitLsn >= lsnNumber(lsn));
  return [...new Set(after.flatMap(({ changes }) => changes.flatMap(tablesOf)))];
}

async function peek(source: Session, name: string, publications: readonly string[]): Promise<Buffer[] | null> {
  try {
    return await source.transaction(async () => {
      await source.query(`SET LOCAL statement_timeout = ${LIMITS.peekFailingMs}`);
      const rows = await source.query<{ data: Buffer }>(
        // A transaction comes as a whole, whatever is asked for, and may be bigger than this worker's memory.
        `SELECT data FROM (
           SELECT data, sum(length(data)) OVER (ROWS UNBOUNDED PRECEDING) AS bytes
             FROM pg_logical_slot_peek_binary_changes($1, NULL, ${LIMITS.peekFailingChanges},
                    'proto_version', '1', 'publication_names', $2)) AS message
          WHERE bytes <= ${LIMITS.peekFailingBytes} LIMIT ${LIMITS.peekFailingChanges}`,
        [name, publications.map(quoteIdent).join(', ')],
      );
      return rows.map(({ data }) => data);
    });
  } catch (error) {
    // 55006: the worker was just started again; 57014: too much to decode. Anything else the steps themselves will meet.
    if (source.closed || sqlstateOf(error) === null) throw error;
    return null;
  }
}

/**
 * Waiting, or an end from outside, says nothing about the change itself; nor does what only statements are refused: an
 * apply worker has another role, perhaps, and may write to identity columns.
 */
const SAYS_NOTHING = /^(08|25|40|53|55|57|58|XX|42501|428C9)/;

/**
 * Applies the transaction as an apply worker does, without triggers and foreign keys, and rolls it back. Null when our
 * role may not switch those off, or nothing failed: then nothing is proven.
 */
async function tryChanges(target: Session, { changes }: StreamTransaction): Promise<FailingChange | null> {
  await target.query('BEGIN');
  try {
    try {
      await target.query(
        `SET LOCAL session_replication_role = replica; SET LOCAL lock_timeout = ${LIMITS.tryChangeMs}; SET LOCAL statement_timeout = ${LIMITS.tryChangeMs};
         SET LOCAL idle_in_transaction_session_timeout = ${LIMITS.tryChangeMs}`,
      );
    } catch {
      return null;
    }
    for (const change of changes.slice(0, LIMITS.peekFailingChanges)) {
      // It is not tried: it would lock out every reader, and fails only where we refuse it ourselves.
      if (change.kind === 'TRUNCATE') {
        const reason = await refusalOfTruncate(target, change.relations);
        return reason === null ? null : { tables: tablesOf(change), reason: `TRUNCATE: ${reason}` };
      }
      const statement = statementOf(change);
      if (statement === null) return null;
      try {
        await target.query(statement.sql, statement.values);
      } catch (error) {
        const sqlstate = sqlstateOf(error);
        if (target.closed || sqlstate === null || SAYS_NOTHING.test(sqlstate)) return null;
        return { tables: tablesOf(change), reason: `${change.kind}: ${describe(error as ServerError)}` };
      }
    }
    return null;
  } finally {
    await target.query('ROLLBACK');
  }
}

interface ServerError {
  message: string;
  detail?: string;
}

/** A key is needed to find the row; the rest of it is the user's and goes into no history. */
const describe = ({ message, detail }: ServerError): string =>
  redact(detail === undefined || detail.startsWith('Failing row') ? message : `${message} (${detail})`);

const tablesOf = (change: StreamChange): string[] =>
  (change.kind === 'TRUNCATE' ? change.relations : [change.relation]).map(({ schema, name }) =>
    displayName(schema, name),
  );

interface Statement {
  sql: string;
  values: (string | null)[];
}

/** Null for a change whose row cannot be told from others: the worker looks for it among all. */
function statementOf(change: Exclude<StreamChange, { kind: 'TRUNCATE' }>): Statement | null {
  const { relation } = change;
  const table = quoteName(relation.schema, relation.name);
  const values: (string | null)[] = [];
  const parameter = (value: Value): string => `$${values.push(typeof value === 'string' ? null : value.text)}`;
  const named = (row: Value[]) =>
    relation.columns.flatMap(({ name }, n) => {
      const value = row[n] ?? 'unchanged';
      return value === 'unchanged' ? [] : [{ column: quoteIdent(name), value }];
    });
  if (change.kind === 'INSERT') {
    const row = named(change.row);
    const columns = row.map(({ column }) => column).join(', ');
    const list = row.map(({ value }) => parameter(value)).join(', ');
    const sql = `INSERT INTO ${table} (${columns}) OVERRIDING SYSTEM VALUE VALUES (${list})`;
    return { sql: row.length === 0 ? `INSERT INTO ${table} DEFAULT VALUES` : sql, values };
  }
  const where = (row: Value[]): string | null => {
    const key = keyOf(relation, row);
    return key.length === 0 || relation.identity === 'f'
      ? null
      : key.map(({ name, value }) => `${quoteIdent(name)} = ${parameter(value)}`).join(' AND ');
  };
  if (change.kind === 'DELETE') {
    const found = where(change.old);
    return found === null ? null : { sql: `DELETE FROM ONLY ${table} WHERE ${found}`, values };
  }
  const set = named(change.row)
    .map(({ column, value }) => `${column} = ${parameter(value)}`)
    .join(', ');
  // Its old key, where that has changed.
  const found = where(change.old ?? change.row);
  return found === null || set === '' ? null : { sql: `UPDATE ONLY ${table} SET ${set} WHERE ${found}`, values };
}

const keyOf = (relation: StreamRelation, row: Value[]): { name: string; value: Value }[] =>
  relation.columns.flatMap(({ name, key }, n) => (key ? [{ name, value: row[n] ?? 'null' }] : []));
