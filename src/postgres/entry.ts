import { LEDGER_SCHEMA } from '../contract.ts';
import type { FailureType } from '../domain/failure.ts';
import { LIMITS } from '../domain/limits.ts';
import type { Session } from './connection.ts';
import { applyLeniently } from './lenient.ts';
import { recordWarning } from './ledger.ts';
import type { Batch } from './entry-batch.ts';
import { planBatches } from './entry-batch.ts';
import { sqlstateOf, toMigrationError } from './sqlstate.ts';
import type { Stage, StagedEntry } from './stage.ts';
import { FOREIGN_KEY, FOREIGN_KEY_VALIDATION } from './stage.ts';

const ENTRY = `${LEDGER_SCHEMA}.entry`;

/** Sessions that run entries need what pg_restore sets: bodies may name what comes later, and notices say nothing. */
export const ENTRY_SETTINGS = {
  check_function_bodies: 'off',
  client_min_messages: 'warning',
  default_tablespace: '',
} as const;

/**
 * One session at a time works on a database's schema. The lock ends with its session, so that a retry waits until the
 * attempt before it is gone, and two attempts never run the same entry.
 */
export async function lockSchemaWork(target: Session): Promise<void> {
  await target.query(`SELECT pg_advisory_lock(hashtext('${LEDGER_SCHEMA}'), hashtext('schema'))`);
}

export async function countEntries(target: Session): Promise<number> {
  const { count } = await target.one<{ count: number }>(`SELECT count(*)::float8 AS count FROM ${ENTRY}`);
  return count;
}

/** Appends to the ledger; `first` is the position of the first one. */
export async function insertEntries(target: Session, entries: readonly StagedEntry[], first: number): Promise<void> {
  const column = <K extends keyof StagedEntry>(name: K) => entries.map((entry) => entry[name]);
  await target.query(
    `INSERT INTO ${ENTRY} (position, dump_id, stage, kind, label, class_oid, oid, relation, touches, sql)
     SELECT $1 + n - 1, dump_id, stage, kind, label, class_oid, oid, relation, touches::int[], sql
       FROM unnest($2::int[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::bigint[], $8::bigint[], $9::text[], $10::text[])
            WITH ORDINALITY AS e (dump_id, stage, kind, label, class_oid, oid, relation, touches, sql, n)`,
    [
      first,
      column('dumpId'),
      column('stage'),
      column('kind'),
      column('label'),
      column('classOid'),
      column('oid'),
      column('relation'),
      // unnest would take arrays in an array apart.
      column('touches').map((ids) => ids && `{${ids.join()}}`),
      column('sql'),
    ],
  );
}

export interface EntryRow {
  position: number;
  kind: string;
  label: string;
  /** Oid of the table on the source, where the entry belongs to one. */
  relation: number | null;
  touches: readonly number[] | null;
  sql: string;
}

/** The next entries of these stages that are not done, in pg_restore's order. */
export const nextEntries = (
  target: Session,
  stages: readonly Stage[],
  after: number,
  limit: number,
  wanted: WantedEntries = 'all',
): Promise<EntryRow[]> =>
  target.query<EntryRow>(
    `SELECT position, kind, label, relation::float8, touches, sql FROM ${ENTRY}
      WHERE stage = ANY ($1) AND state = 'todo' AND position > $2
        AND ($4 = 'all' OR (kind IN ('${FOREIGN_KEY}', '${FOREIGN_KEY_VALIDATION}')) = ($4 = 'foreign keys')) ORDER BY position LIMIT $3`,
    [stages, after, limit, wanted],
  );

/** In the transaction that has run them. */
export const markDone = (target: Session, entries: readonly EntryRow[]): Promise<unknown> =>
  target.query(`UPDATE ${ENTRY} SET state = 'done' WHERE position = ANY ($1)`, [
    entries.map(({ position }) => position),
  ]);

export type WantedEntries = 'all' | 'foreign keys' | 'all but foreign keys';

export interface EntryRun {
  stages: readonly Stage[];
  wanted?: WantedEntries;
  /** For the report and for failures. */
  step: string;
  otherwise: FailureType;
  /** Positions of those that take long, each in a transaction of its own, so that nothing is repeated with them. */
  alone?: (entries: readonly EntryRow[]) => Promise<ReadonlySet<number>>;
  /** What to do when an entry failed, with the warning that says so; null: nothing helps. No `sql`: it is left out. */
  instead?: (entry: EntryRow, sqlstate: string | null) => { sql: string | null; warning: string } | null;
  /** Whether an entry that failed is left for a later run. */
  postpone?: (entry: EntryRow, sqlstate: string | null) => boolean;
  onProgress?: (label: string) => void;
  /** Is told of every entry that is done. */
  onDone?: ((label: string) => void) | undefined;
}

/**
 * Runs what is not done yet. What runs in one transaction is one message with its marks, so a crash leaves all of it or
 * nothing; where that fails, it is run again entry by entry, which names the one. The first session is the one that
 * everything runs on; what may run at the same time is spread over all.
 */
export async function runEntries(sessions: readonly [Session, ...Session[]], run: EntryRun): Promise<void> {
  const [target] = sessions;
  let after = -1;
  for (;;) {
    const entries = await nextEntries(target, run.stages, after, LIMITS.schemaEntriesAtOnce, run.wanted);
    const last = entries.at(-1);
    if (last === undefined) return;
    const alone = (await run.alone?.(entries)) ?? new Set<number>();
    for (const batches of planBatches(entries, alone, sessions.length > 1)) {
      const failed = await spread(batches, sessions, (session, batch) => {
        return runBatch(session, batch, run);
      });
      for (const entry of failed.flat().sort((a, b) => a.position - b.position)) await runEntry(target, entry, run);
      if (run.onDone !== undefined) for (const { label } of batches.flat(2)) run.onDone(label);
    }
    after = last.position;
  }
}

/** Each session takes the next one. Does not leave any behind that is still at work when it fails. */
async function spread<T, R>(
  items: readonly T[],
  sessions: readonly Session[],
  work: (session: Session, item: T) => Promise<R>,
): Promise<R[]> {
  const left = [...items];
  const results: R[] = [];
  const takeAll = async (session: Session) => {
    for (let item = left.shift(); item !== undefined; item = left.shift()) results.push(await work(session, item));
  };
  const ended = await Promise.allSettled(
    sessions.map((session) =>
      takeAll(session).catch((error: unknown) => {
        left.length = 0;
        throw error;
      }),
    ),
  );
  for (const end of ended) if (end.status === 'rejected') throw end.reason;
  return results;
}

/** Answers those that are still to be done: where one failed, trying each by itself will tell more. */
async function runBatch(target: Session, batch: Batch<EntryRow>, run: EntryRun): Promise<readonly EntryRow[]> {
  for (const [index, entries] of batch.entries()) {
    run.onProgress?.(entries[0]?.label ?? '');
    if (!(await runTogether(target, entries))) return batch.slice(index).flat();
  }
  return [];
}

/** False: it failed, and nothing of it is there. */
async function runTogether(target: Session, batch: readonly EntryRow[]): Promise<boolean> {
  const positions = batch.map(({ position }) => position).join(', ');
  const mark = `UPDATE ${ENTRY} SET state = 'done' WHERE position IN (${positions});`;
  try {
    await target.query(`BEGIN;\n${batch.map(({ sql }) => sql).join('\n')}\n${mark}\nCOMMIT;`);
    return true;
  } catch (error) {
    if (target.closed)
      throw toMigrationError(error, {
        server: 'target',
        doing: `restoring ${batch[0]?.label ?? ''} and what follows`,
      });
    await target.query('ROLLBACK');
    return false;
  }
}

async function runEntry(target: Session, entry: EntryRow, run: EntryRun): Promise<void> {
  try {
    await target.transaction(async () => {
      await target.query(entry.sql);
      await mark(target, entry);
    });
  } catch (error) {
    const sqlstate = sqlstateOf(error);
    const { label } = entry;
    if (run.postpone?.(entry, sqlstate) === true) return;
    const doing = `restoring ${label}`;
    const failure = toMigrationError(error, { server: 'target', doing, object: label, otherwise: run.otherwise });
    if (failure.retryable || target.closed) throw failure;
    const instead = run.instead?.(entry, sqlstate) ?? null;
    const secondTry = async () => {
      const warnings = instead === null ? await applyLeniently(target, entry, sqlstate) : [instead.warning];
      if (warnings === null) throw failure;
      if (instead?.sql != null) await target.query(instead.sql);
      for (const warning of warnings) await recordWarning(target, run.step, warning);
      await mark(target, entry, warnings.join(' '));
    };
    await target.transaction(secondTry).catch((again: unknown) => {
      const other = toMigrationError(again, { server: 'target', doing, object: label, otherwise: run.otherwise });
      throw other.retryable ? other : failure;
    });
  }
}

async function mark(target: Session, { position }: EntryRow, message: string | null = null): Promise<void> {
  await target.query(`UPDATE ${ENTRY} SET state = 'done', message = $2 WHERE position = $1`, [position, message]);
}
