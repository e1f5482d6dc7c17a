import { LEDGER_SCHEMA } from '../contract.ts';
import { MigrationError } from '../domain/failure.ts';
import type { Session } from './connection.ts';
import type { Table } from './scope.ts';

interface GenerationRow {
  state: 'open' | 'closing' | 'sealed' | 'streaming';
  snapshot: string;
}

/**
 * Reads a generation that must be open, and keeps it so until the transaction ends.
 * @throws MigrationError `SnapshotLost` when it is being closed or is not there.
 */
export async function holdOpenGeneration(
  target: Session,
  generation: number,
  lock: 'SHARE' | 'UPDATE' = 'SHARE',
): Promise<string> {
  const [row] = await target.query<GenerationRow>(
    `SELECT state, snapshot FROM ${LEDGER_SCHEMA}.generation WHERE number = $1 FOR ${lock}`,
    [generation],
  );
  if (row?.state === 'open') return row.snapshot;
  throw new MigrationError(
    'SnapshotLost',
    row === undefined
      ? `The ledger on the target has no generation ${generation}.`
      : `Generation ${generation} takes no more copies: it is ${row.state}.`,
  );
}

/** The step under which the ledger says that the copy is complete: no generation has anything left. */
export const SEALED = 'sealCopy';

export const isCopySealed = async (target: Session): Promise<boolean> =>
  (await target.query(`SELECT FROM ${LEDGER_SCHEMA}.event WHERE step = $1`, [SEALED])).length > 0;

/**
 * Which tables a generation is to copy: those that the one before it left over; before anything was planned, all that
 * the schema on the target has, and before that, all.
 */
export async function tablesOfGeneration(target: Session, generation: number): Promise<(table: Table) => boolean> {
  const planned = await target.query<{ oid: number; generation: number }>(
    `SELECT oid::float8 AS oid, generation FROM ${LEDGER_SCHEMA}.relation`,
  );
  if (planned.length > 0) {
    const own = new Set(planned.filter((row) => row.generation === generation).map(({ oid }) => oid));
    return ({ oid }) => own.has(oid);
  }
  const restored = await target.query<{ oid: number }>(
    `SELECT oid::float8 AS oid FROM ${LEDGER_SCHEMA}.entry WHERE kind = 'TABLE'`,
  );
  if (restored.length === 0) return () => true;
  const there = new Set(restored.map(({ oid }) => oid));
  // Those of extensions come with CREATE EXTENSION, and not by an entry of their own.
  return ({ oid, extension }) => extension || there.has(oid);
}

export interface LeftOver {
  oid: number;
  /** Whether rows of it are on the target that are not to stay: it was copied in parts, or is to be copied once more. */
  filled: boolean;
  targetSchema: string;
  targetName: string;
}

/** A range of a key that is in. */
const RANGE_IS_DONE = `EXISTS (SELECT FROM ${LEDGER_SCHEMA}.unit d
   WHERE d.relation = k.relation AND d.key_range = k.number AND d.kind = 'copy' AND d.state = 'done')`;

/**
 * Closes a generation whose snapshot is lost, inside the caller's transaction: from now on it takes no copy, what is
 * finished stays, tables or ranges of a key, and the rest belongs to the next one. `useless`: generations whose slot can
 * no longer send what came after their snapshot, so that what they have finished is worth nothing either. Answers what is
 * left over, of which the filled ones are to be emptied; null when it was closed before.
 */
export async function closeGeneration(
  target: Session,
  generation: number,
  useless: readonly number[],
): Promise<LeftOver[] | null> {
  // Whoever copies holds this row, so none of them is left when it is ours, and none begins after.
  const rows = await target.query(
    `UPDATE ${LEDGER_SCHEMA}.generation SET state = 'closing' WHERE number = $1 AND state IN ('open', 'closing') RETURNING number`,
    [generation],
  );
  if (rows.length === 0) return null;
  const left = await target.query<LeftOver & { ranged: boolean }>(
    `WITH relation AS (
       SELECT r.oid, r.generation, r.published,
              EXISTS (SELECT FROM ${LEDGER_SCHEMA}.key_range k WHERE k.relation = r.oid) AS ranged,
              EXISTS (SELECT FROM ${LEDGER_SCHEMA}.key_range k WHERE k.relation = r.oid AND NOT ${RANGE_IS_DONE}) AS range_left,
              EXISTS (SELECT FROM ${LEDGER_SCHEMA}.key_range k WHERE k.relation = r.oid AND k.generation = ANY ($2) AND ${RANGE_IS_DONE}) AS range_useless,
              -- null: no unit at all, so this generation was never planned
              (SELECT bool_and(u.state <> 'todo') FROM ${LEDGER_SCHEMA}.unit u WHERE u.relation = r.oid AND u.kind = 'copy') AS done
         FROM ${LEDGER_SCHEMA}.relation r)
     UPDATE ${LEDGER_SCHEMA}.relation r SET generation = $1 + 1 FROM relation s
      WHERE s.oid = r.oid AND CASE WHEN s.ranged THEN s.generation = $1 AND s.range_left OR s.range_useless
            ELSE s.generation = $1 AND s.done IS NOT TRUE OR s.generation = ANY ($2) AND s.published END
     RETURNING r.oid::float8 AS oid, r.target_schema AS "targetSchema", r.target_name AS "targetName",
               s.ranged AND NOT s.range_useless AS ranged,
               (NOT s.ranged OR s.range_useless)
                 AND EXISTS (SELECT FROM ${LEDGER_SCHEMA}.unit u WHERE u.relation = r.oid AND u.kind = 'copy' AND u.state = 'done') AS filled`,
    [generation, useless],
  );
  await leaveToNext(target, generation, left);
  return left.map(({ oid, filled, targetSchema, targetName }) => ({ oid, filled, targetSchema, targetName }));
}

/** `ranged`: its finished ranges stay where they are. */
async function leaveToNext(
  target: Session,
  generation: number,
  left: readonly { oid: number; ranged: boolean }[],
): Promise<void> {
  const anew = left.filter(({ ranged }) => !ranged).map(({ oid }) => oid);
  await target.query(
    // Also of tables that are not planned yet.
    `UPDATE ${LEDGER_SCHEMA}.key_range k SET generation = $1 + 1
      WHERE k.generation = $1 AND NOT ${RANGE_IS_DONE} OR k.relation = ANY ($2)`,
    [generation, anew],
  );
  await target.query(
    `DELETE FROM ${LEDGER_SCHEMA}.unit
      WHERE relation = ANY ($1) AND NOT (key_range IS NOT NULL AND state = 'done' AND relation <> ALL ($2))`,
    [left.map(({ oid }) => oid), anew],
  );
}

/** The published tables of which each generation up to this one has brought something, by their oids on the source. */
export async function readFinished(target: Session, generation: number): Promise<Map<number, Set<number>>> {
  const rows = await target.query<{ number: number; oid: number | null }>(
    `SELECT g.number, t.oid::float8 AS oid FROM ${LEDGER_SCHEMA}.generation g
       LEFT JOIN (
         SELECT generation, oid FROM ${LEDGER_SCHEMA}.relation r
          WHERE published AND NOT EXISTS (SELECT FROM ${LEDGER_SCHEMA}.key_range k WHERE k.relation = r.oid)
         UNION
         SELECT generation, relation FROM ${LEDGER_SCHEMA}.key_range) AS t ON t.generation = g.number
      WHERE g.number <= $1 ORDER BY 1`,
    [generation],
  );
  const finished = new Map<number, Set<number>>();
  for (const { number, oid } of rows) {
    const tables = finished.get(number) ?? new Set();
    if (oid !== null) tables.add(oid);
    finished.set(number, tables);
  }
  return finished;
}
