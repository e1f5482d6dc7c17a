import { LEDGER_SCHEMA } from '../contract.ts';
import { LIMITS } from '../domain/limits.ts';
import type { CopyProgress } from '../domain/migration.ts';
import type { Session } from './connection.ts';

/** A piece of copying: a table, a range of a split table's pages, or one of its key. */
export interface CopyUnit {
  id: number;
  /** Oid of the table on the source. */
  relation: number;
  label: string;
  firstPage: number | null;
  /** null in the last range of a split table: it has no end. */
  endPage: number | null;
  /** Number and condition of a range of the key. */
  keyRange: number | null;
  rangeCondition: string | null;
  tiny: boolean;
  bytes: number;
  schema: string;
  name: string;
  targetSchema: string;
  targetName: string;
  columns: string[];
  format: 'binary' | 'text';
  condition: string | null;
}

/** An index to build, or a table to finish: its keys, then ANALYZE. */
export interface IndexUnit {
  id: number;
  kind: 'index' | 'key';
  relation: number;
  label: string;
  /** Of the entry; null for a key unit. */
  position: number | null;
  schema: string;
  name: string;
}

/**
 * Where a lane is in the order of units, biggest first: looking from the top each time was seen to cost 44 ms with
 * 100,000 units. What another lane gave back above it is found when the lane begins again at the top.
 */
export interface Cursor {
  bytes: number;
  id: number;
}

const COPY_UNIT = `
  SELECT u.id::float8 AS id, u.relation::float8 AS relation, u.label, u.first_page::float8 AS "firstPage",
         u.end_page::float8 AS "endPage",
         u.key_range AS "keyRange", k.condition AS "rangeCondition", u.tiny, u.bytes::float8 AS bytes, r.schema, r.name,
         r.target_schema AS "targetSchema", r.target_name AS "targetName", r.columns, r.format, r.condition
    FROM ${LEDGER_SCHEMA}.unit u JOIN ${LEDGER_SCHEMA}.relation r ON r.oid = u.relation
         LEFT JOIN ${LEDGER_SCHEMA}.key_range k ON k.relation = u.relation AND k.number = u.key_range
   WHERE u.generation = $1 AND u.kind = 'copy' AND u.state = 'todo'
     AND ($2::bigint IS NULL OR u.bytes <= $2 AND (u.bytes < $2 OR u.id > $3))`;

/**
 * Claims the biggest unit that nobody holds; of tiny ones, as many as fit into one batch. The row lock is the claim.
 * No `running` state: whoever dies gives its units back by dying.
 */
export async function claimCopyUnits(target: Session, generation: number, cursor: Cursor | null): Promise<CopyUnit[]> {
  const after = [generation, cursor?.bytes ?? null, cursor?.id ?? null];
  const first = await target.query<CopyUnit>(
    `${COPY_UNIT} ORDER BY u.bytes DESC, u.id LIMIT 1 FOR UPDATE OF u SKIP LOCKED`,
    after,
  );
  const [biggest] = first;
  if (biggest?.tiny !== true) return first;
  // All that follow are smaller, so this many stay below the batch's bytes.
  const fitting = Math.floor(LIMITS.tinyBatchBytes / Math.max(biggest.bytes, 1));
  const more = Math.min(fitting, LIMITS.tinyTablesPerBatch) - 1;
  const rest = await target.query<CopyUnit>(
    `${COPY_UNIT} AND u.tiny ORDER BY u.bytes DESC, u.id LIMIT ${Math.max(more, 0)} FOR UPDATE OF u SKIP LOCKED`,
    [generation, biggest.bytes, biggest.id],
  );
  return [biggest, ...rest];
}

/**
 * Claims the next table to finish, else the biggest index to build, of tables whose rows are all in, whatever the
 * generation that brought them. Tiny tables are none of it: they get their indexes and keys in the transaction that
 * copies them.
 */
export async function claimIndexUnit(target: Session): Promise<IndexUnit | undefined> {
  for (const [kind, before] of [
    ['key', ['copy', 'index']],
    ['index', ['copy']],
  ] as const) {
    const [unit] = await target.query<IndexUnit>(
      `SELECT u.id::float8 AS id, u.kind, u.relation::float8 AS relation, u.label, u.position, r.schema, r.name
         FROM ${LEDGER_SCHEMA}.unit u JOIN ${LEDGER_SCHEMA}.relation r ON r.oid = u.relation
        WHERE u.kind = $1 AND u.state = 'todo' AND NOT u.tiny
          AND NOT EXISTS (SELECT FROM ${LEDGER_SCHEMA}.unit b
                           WHERE b.relation = u.relation AND b.state = 'todo' AND b.kind = ANY ($2))
        ORDER BY u.bytes DESC, u.id LIMIT 1 FOR UPDATE OF u SKIP LOCKED`,
      [kind, before],
    );
    if (unit !== undefined) return unit;
  }
  return undefined;
}

/** Marks units as done, in the transaction that did them. */
export async function finishUnits(
  target: Session,
  done: readonly { id: number; rows: number | null }[],
  seconds: number,
): Promise<void> {
  await target.query(
    `UPDATE ${LEDGER_SCHEMA}.unit u
        SET state = 'done', rows = d.rows, seconds = $3, finished = clock_timestamp()
       FROM unnest($1::bigint[], $2::bigint[]) AS d (id, rows) WHERE u.id = d.id`,
    [done.map(({ id }) => id), done.map(({ rows }) => rows), seconds],
  );
}

/** Marks the index units of tiny tables, whose indexes came with their rows. */
export async function finishIndexUnits(target: Session, relations: readonly number[]): Promise<void> {
  await target.query(
    `UPDATE ${LEDGER_SCHEMA}.unit SET state = 'done', finished = clock_timestamp()
      WHERE relation = ANY ($1) AND kind = 'index' AND tiny AND state = 'todo'`,
    [relations],
  );
}

export type UnitKind = 'copy' | 'index' | 'key';

/**
 * Some that are not done, for a message; empty when all are. Claimed ones count: only what is committed is done.
 * `generation`: null for all of them.
 */
export async function findUnfinished(
  target: Session,
  generation: number | null,
  kinds: readonly UnitKind[],
): Promise<string[]> {
  const rows = await target.query<{ label: string }>(
    `SELECT label FROM ${LEDGER_SCHEMA}.unit
      WHERE ($1::int IS NULL OR generation = $1) AND state = 'todo' AND kind = ANY ($2) ORDER BY bytes DESC, id LIMIT ${LIMITS.namesInMessage}`,
    [generation, kinds],
  );
  return rows.map(({ label }) => label);
}

/** How far copy and indexes are, over all generations. A table is copied when all its units are. */
export async function readCopyProgress(target: Session): Promise<CopyProgress> {
  const row = await target.one<
    Record<'tables' | 'copied' | 'bytes' | 'copied_bytes' | 'rows' | 'indexes' | 'built', number>
  >(
    `WITH relation AS (
       SELECT sum(bytes) AS bytes, coalesce(sum(bytes) FILTER (WHERE state <> 'todo'), 0) AS copied_bytes,
              sum(rows) AS rows, bool_and(state <> 'todo') AS copied
         FROM ${LEDGER_SCHEMA}.unit WHERE kind = 'copy' GROUP BY relation)
     SELECT count(*)::float8 AS tables, count(*) FILTER (WHERE copied)::float8 AS copied,
            coalesce(sum(bytes), 0)::float8 AS bytes, coalesce(sum(copied_bytes), 0)::float8 AS copied_bytes,
            coalesce(sum(rows), 0)::float8 AS rows,
            (SELECT count(*)::float8 FROM ${LEDGER_SCHEMA}.unit WHERE kind = 'index') AS indexes,
            (SELECT count(*)::float8 FROM ${LEDGER_SCHEMA}.unit WHERE kind = 'index' AND state <> 'todo') AS built
       FROM relation`,
  );
  return {
    tables: { copied: row.copied, total: row.tables },
    bytes: { copied: row.copied_bytes, total: row.bytes },
    rows: row.rows,
    indexes: { built: row.built, total: row.indexes },
  };
}
