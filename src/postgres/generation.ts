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
  /** Whether rows of it are on the target: it was copied in parts, or is to be copied once more. */
  filled: boolean;
  targetSchema: string;
  targetName: string;
}

/**
 * Closes a generation whose snapshot is lost, inside the caller's transaction: from now on it takes no copy, what is
 * finished stays, and the rest belongs to the next one. `useless`: generations whose slot can no longer send what came
 * after their snapshot, so that their finished tables are worth nothing either. Answers what is left over, which is to be
 * emptied; null when it was closed before.
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
  const left = await target.query<LeftOver>(
    `UPDATE ${LEDGER_SCHEMA}.relation r SET generation = $1 + 1
      -- no unit at all: this generation was never planned
      WHERE r.generation = $1 AND (SELECT bool_and(u.state <> 'todo') FROM ${LEDGER_SCHEMA}.unit u WHERE u.relation = r.oid AND u.kind = 'copy') IS NOT TRUE
         OR r.generation = ANY ($2) AND r.published
     RETURNING r.oid::float8 AS oid, r.target_schema AS "targetSchema", r.target_name AS "targetName",
               EXISTS (SELECT FROM ${LEDGER_SCHEMA}.unit u WHERE u.relation = r.oid AND u.kind = 'copy' AND u.state = 'done') AS filled`,
    [generation, useless],
  );
  await target.query(`DELETE FROM ${LEDGER_SCHEMA}.unit WHERE relation = ANY ($1)`, [left.map(({ oid }) => oid)]);
  return left;
}

/** The published tables that each generation up to this one has brought, by their oids on the source. */
export async function readFinished(target: Session, generation: number): Promise<Map<number, Set<number>>> {
  const rows = await target.query<{ number: number; oid: number | null }>(
    `SELECT g.number, r.oid::float8 AS oid FROM ${LEDGER_SCHEMA}.generation g
       LEFT JOIN ${LEDGER_SCHEMA}.relation r ON r.generation = g.number AND r.published
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
