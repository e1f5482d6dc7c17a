import { MigrationError } from '../domain/failure.ts';
import type { Session } from './connection.ts';
import { displayName, quoteLiteral, quoteName } from './identifier.ts';
import { sqlstateOf, toMigrationError } from './sqlstate.ts';

/**
 * Runs `work` on the source in a transaction that sees what the exported snapshot sees.
 * @throws MigrationError `SnapshotLost` when no server process holds the snapshot any more.
 */
export async function underSnapshot<T>(source: Session, snapshot: string, work: () => Promise<T>): Promise<T> {
  return source.transaction(async () => {
    try {
      await source.query(`SET TRANSACTION SNAPSHOT ${quoteLiteral(snapshot)}`);
    } catch (error) {
      const context = { server: 'source', doing: 'importing the snapshot', otherwise: 'SnapshotLost' } as const;
      const failure = toMigrationError(error, context);
      if (failure.type !== 'SnapshotLost') throw failure;
      throw new MigrationError(
        'SnapshotLost',
        'The snapshot is gone: the source was restarted, or the session that held it has ended.',
        {
          sqlstate: failure.details.sqlstate,
        },
      );
    }
    return work();
  }, 'BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
}

/** A table on the source, as the snapshot sees it. */
export interface SeenTable {
  oid: number;
  schema: string;
  name: string;
}

/** SQLSTATE: what a batch gets when it gives way to a lock of the application. */
export const LOCK_NOT_AVAILABLE = '55P03';

/** SQLSTATE of a table or schema that is not there. */
const UNDEFINED = new Set(['42P01', '3F000']);

/** A table that the snapshot can no longer read. */
export interface ChangedTable extends SeenTable {
  /** Rewritten or truncated, and still of this name; else it was renamed or dropped. */
  sameName: boolean;
}

/** The failure that a changed table is, where nothing better is known. */
export const snapshotLost = (changed: readonly SeenTable[]): MigrationError => {
  const names = changed.map(({ schema, name }) => displayName(schema, name));
  return new MigrationError(
    'SnapshotLost',
    `The snapshot can no longer read ${names.join(', ')}: rewritten, truncated, renamed or dropped on the source ` +
      'since the snapshot was taken (TRUNCATE, CLUSTER, VACUUM FULL, or an ALTER TABLE that rewrites).',
    { object: names[0] ?? null },
  );
};

/**
 * Locks the tables until the transaction ends and finds those whose files are not those of the snapshot, or whose names
 * lead to other tables by now. After a TRUNCATE, a rewriting ALTER, CLUSTER or VACUUM FULL the snapshot would see no
 * rows, or some of them, and no error. The lock is ACCESS SHARE: writes go on, and only DDL waits.
 * @throws MigrationError `SnapshotLost` when a table or its name is gone, which ends the transaction.
 */
export async function lockAndFindChanged(source: Session, tables: readonly SeenTable[]): Promise<ChangedTable[]> {
  if (tables.length === 0) return [];
  const names = tables.map(({ schema, name }) => quoteName(schema, name));
  try {
    await source.query(`LOCK TABLE ${names.map((name) => `ONLY ${name}`).join(', ')} IN ACCESS SHARE MODE`);
  } catch (error) {
    if (!UNDEFINED.has(sqlstateOf(error) ?? '')) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    const named = tables.filter(({ schema, name }) => reason.includes(schema) && reason.includes(name));
    throw snapshotLost((named.length === 1 ? named : tables).slice(0, 1));
  }
  // pg_class shows what the snapshot saw, the functions what is now; under the lock, what is now stays.
  return source.query<ChangedTable>(
    `SELECT seen.oid::bigint::float8 AS oid, seen.schema, seen.name, to_regclass(seen.quoted)::oid IS NOT DISTINCT FROM seen.oid AS "sameName"
       FROM unnest($1::oid[], $2::text[], $3::text[], $4::text[]) AS seen (oid, schema, name, quoted)
       LEFT JOIN pg_class c ON c.oid = seen.oid
      WHERE c.relfilenode IS DISTINCT FROM pg_relation_filenode(seen.oid)
         OR to_regclass(seen.quoted)::oid IS DISTINCT FROM seen.oid`,
    [tables.map(({ oid }) => oid), tables.map(({ schema }) => schema), tables.map(({ name }) => name), names],
  );
}
