import { LIMITS } from '../domain/limits.ts';
import type { Session } from './connection.ts';
import { displayName, quoteIdent, quoteLiteral, quoteName } from './identifier.ts';
import type { ForeignKeyFact, IndexFact, StagedEntry } from './stage.ts';

/** Schemas of the system and of ours; `s` is pg_namespace. */
const USER_SCHEMA = `s.nspname !~ '^pg_' AND s.nspname NOT IN ('information_schema', 'pgtransit')`;

interface IndexRow {
  oid: string;
  relation: string;
  definition: string;
  schema: string;
  table: string;
  index: string;
  name: string | null;
  clause: string | null;
  unusual: boolean;
}

/**
 * The foreign keys whose rows are worth checking by a statement of its own: those of large tables. Not where either
 * table is partitioned: before 18 that is refused, or leaves the keys of partitions behind as not valid.
 */
export async function readForeignKeyFacts(
  source: Session,
  oids: readonly number[],
): Promise<Map<number, ForeignKeyFact>> {
  if (oids.length === 0) return new Map();
  const rows = await source.query<{ oid: string; relation: string; schema: string; table: string; name: string }>(
    `SELECT k.oid::text, t.oid::text AS relation, s.nspname AS schema, t.relname AS table, k.conname AS name
       FROM pg_constraint k
       JOIN pg_class t ON t.oid = k.conrelid AND t.relkind = 'r'
       JOIN pg_class f ON f.oid = k.confrelid AND f.relkind = 'r'
       JOIN pg_namespace s ON s.oid = t.relnamespace
      WHERE k.oid = ANY ($1::oid[]) AND k.contype = 'f' AND k.convalidated
        AND coalesce((to_jsonb(k) ->> 'conenforced')::bool, true) -- 18
        -- to ask the file system took 0.08 s for each 1,000; it is needed where no VACUUM or ANALYZE has counted yet
        AND CASE WHEN t.relpages > 0 THEN t.relpages * current_setting('block_size')::float8
                 ELSE coalesce(pg_relation_size(t.oid), 0) END > $2`,
    [oids, LIMITS.tinyTableBytes],
  );
  return new Map(rows.map(({ oid, relation, ...names }) => [Number(oid), { relation: Number(relation), ...names }]));
}

/** Facts about the indexes and keys among these oids (of pg_class or pg_constraint) that ordinary tables have. */
export async function readIndexFacts(source: Session, oids: readonly number[]): Promise<Map<number, IndexFact>> {
  const rows = await source.query<IndexRow>(
    `SELECT coalesce(k.oid, i.indexrelid)::text AS oid, i.indrelid::text AS relation,
            pg_get_indexdef(i.indexrelid) AS definition, s.nspname AS schema, t.relname AS table, x.relname AS index,
            k.conname AS name,
            CASE k.contype WHEN 'p' THEN 'PRIMARY KEY' ELSE 'UNIQUE' END || ' USING INDEX %INDEX%' ||
              CASE WHEN k.condeferrable THEN ' DEFERRABLE' ELSE '' END ||
              CASE WHEN k.condeferred THEN ' INITIALLY DEFERRED' ELSE '' END AS clause,
            -- WITHOUT OVERLAPS (18) is no plain unique index; USING INDEX would make an inherited NOT NULL the child's own
            -- (18); a line break in a name hides where a statement ends
            k.contype NOT IN ('p', 'u') OR coalesce((to_jsonb(k) ->> 'conperiod')::bool, false) OR i.indisexclusion
              OR k.contype = 'p' AND NOT t.relispartition AND EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = t.oid)
              OR concat(s.nspname, t.relname, x.relname, k.conname,
                        (SELECT string_agg(a.attname, '') FROM pg_attribute a WHERE a.attrelid = x.oid)) ~ '[\\n\\r]' AS unusual
       FROM pg_index i
       JOIN pg_class t ON t.oid = i.indrelid AND t.relkind = 'r'
       JOIN pg_class x ON x.oid = i.indexrelid
       JOIN pg_namespace s ON s.oid = t.relnamespace
       LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.conrelid = i.indrelid AND k.contype IN ('p', 'u', 'x')
      -- as one list, which an index serves: an OR would look at every index of the database
      WHERE i.indexrelid = ANY (ARRAY(
        SELECT unnest($1::oid[])
        UNION ALL SELECT conindid FROM pg_constraint WHERE oid = ANY ($1::oid[]) AND contype IN ('p', 'u', 'x')))`,
    [oids],
  );
  return new Map(rows.map((row) => [Number(row.oid), indexFact(row)]));
}

function indexFact(row: IndexRow): IndexFact {
  const { definition, schema, table, index, name, clause, unusual } = row;
  const constraint = name === null || clause === null ? null : { schema, table, name, index, clause };
  return { relation: Number(row.relation), definition, constraint, unusual };
}

/** Of a clone, the trigger that it was made from; `t` is pg_trigger. There are clones since 11, and a column for it since 13. */
const parentTrigger = (version: number): string =>
  version >= 130000
    ? 't.tgparentid'
    : `coalesce((SELECT d.refobjid FROM pg_depend d WHERE d.classid = 'pg_trigger'::regclass AND d.objid = t.oid
                    AND d.refclassid = 'pg_trigger'::regclass LIMIT 1), 0)`;

/** Those of these oids that are clones of a partitioned table's trigger. */
export async function readTriggerClones(source: Session, oids: readonly number[]): Promise<Set<number>> {
  const rows = await source.query<{ oid: string }>(
    `SELECT t.oid::text FROM pg_trigger t WHERE t.oid = ANY ($1::oid[]) AND ${parentTrigger(source.version)} <> 0`,
    [oids],
  );
  return new Set(rows.map(({ oid }) => Number(oid)));
}

const ENABLE: Readonly<Record<string, string>> = {
  O: 'ENABLE',
  D: 'DISABLE',
  R: 'ENABLE REPLICA',
  A: 'ENABLE ALWAYS',
};

/**
 * Trigger states that pg_dump loses: those of clones below the first level of partitions (it writes them before the
 * clone exists), and those that enforce foreign keys and deferrable keys, which have other names on every server.
 */
export async function readTriggerStates(source: Session): Promise<StagedEntry[]> {
  const clones = await source.query<{ oid: string; schema: string; table: string; trigger: string; state: string }>(
    `SELECT t.oid::text, s.nspname AS schema, c.relname AS table, t.tgname AS trigger, t.tgenabled AS state
       FROM pg_trigger t
       JOIN pg_trigger p ON p.oid = ${parentTrigger(source.version)}
       JOIN pg_class c ON c.oid = t.tgrelid
       JOIN pg_namespace s ON s.oid = c.relnamespace
      WHERE ${USER_SCHEMA} AND (t.tgenabled <> 'O' OR p.tgenabled <> 'O')
        AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.oid = t.tgconstraint AND k.contype <> 't')
      ORDER BY t.oid`,
  );
  const ofConstraints = await source.query<ConstraintTrigger>(
    `SELECT t.oid::text, s.nspname AS schema, c.relname AS table, t.tgenabled AS state, p.proname AS function,
            k.conname AS constraint, ks.nspname AS constraint_schema, kc.relname AS constraint_table
       FROM pg_trigger t
       JOIN pg_constraint k ON k.oid = t.tgconstraint AND k.contype <> 't'
       JOIN pg_proc p ON p.oid = t.tgfoid
       JOIN pg_class c ON c.oid = t.tgrelid
       JOIN pg_namespace s ON s.oid = c.relnamespace
       JOIN pg_class kc ON kc.oid = k.conrelid
       JOIN pg_namespace ks ON ks.oid = kc.relnamespace
      WHERE ${USER_SCHEMA} AND t.tgenabled <> 'O'
      ORDER BY t.oid`,
  );
  return [
    ...clones.map(({ oid, schema, table, trigger, state }) =>
      triggerState(
        oid,
        `${displayName(schema, table)} ${trigger}`,
        `ALTER TABLE ONLY ${quoteName(schema, table)} ${ENABLE[state] ?? 'ENABLE'} TRIGGER ${quoteIdent(trigger)};\n`,
      ),
    ),
    ...ofConstraints.map(constraintTriggerState),
  ];
}

interface ConstraintTrigger {
  oid: string;
  schema: string;
  table: string;
  state: string;
  function: string;
  constraint: string;
  constraint_schema: string;
  constraint_table: string;
}

function constraintTriggerState(t: ConstraintTrigger): StagedEntry {
  const [table, constraintTable] = [quoteName(t.schema, t.table), quoteName(t.constraint_schema, t.constraint_table)];
  const body = `
DECLARE found name;
BEGIN
  FOR found IN
    SELECT tgname FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_constraint k ON k.oid = t.tgconstraint
     WHERE k.contype <> 't' AND k.conname = ${quoteLiteral(t.constraint)} AND k.conrelid = ${quoteLiteral(constraintTable)}::pg_catalog.regclass
       AND t.tgrelid = ${quoteLiteral(table)}::pg_catalog.regclass
       AND t.tgfoid = ${quoteLiteral(`pg_catalog.${quoteIdent(t.function)}`)}::pg_catalog.regproc
  LOOP
    EXECUTE pg_catalog.format('ALTER TABLE ONLY %s ${ENABLE[t.state] ?? 'ENABLE'} TRIGGER %I', ${quoteLiteral(table)}, found);
  END LOOP;
END`;
  const label = `${displayName(t.schema, t.table)} constraint ${t.constraint}`;
  return triggerState(t.oid, label, `DO LANGUAGE plpgsql ${quoteLiteral(body)};\n`);
}

const PG_TRIGGER = 2620;

const triggerState = (oid: string, label: string, sql: string): StagedEntry => ({
  dumpId: 0,
  stage: 'post',
  kind: 'TRIGGER STATE',
  label: `TRIGGER STATE ${label}`,
  classOid: PG_TRIGGER,
  oid: Number(oid),
  relation: null,
  touches: null,
  sql,
});

/** Indexes that pg_dump leaves out, because a failed CREATE INDEX CONCURRENTLY left them invalid. */
export async function readInvalidIndexes(source: Session): Promise<string[]> {
  const rows = await source.query<{ schema: string; index: string }>(
    `SELECT s.nspname AS schema, x.relname AS index
       FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_namespace s ON s.oid = x.relnamespace
       JOIN pg_class t ON t.oid = i.indrelid
      WHERE ${USER_SCHEMA} AND NOT (i.indisvalid AND i.indisready) AND t.relkind <> 'p'
      ORDER BY 1, 2`,
  );
  return rows.map(({ schema, index }) => displayName(schema, index));
}

/** Subscriptions of this database. They are not carried: two subscribers would share one slot. */
export async function readSubscriptions(source: Session): Promise<string[]> {
  const rows = await source.query<{ name: string }>(
    `SELECT subname AS name FROM pg_subscription
      WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND subname !~ '^pgtransit_' ORDER BY 1`,
  );
  return rows.map(({ name }) => quoteIdent(name));
}

/** PostgreSQL 15.20 of Debian keeps a hidden column option that newer pg_dump writes out and newer servers refuse. */
export async function hasHiddenColumnOption(source: Session): Promise<boolean> {
  const sql = `SELECT EXISTS (SELECT FROM pg_attribute WHERE attoptions::text LIKE '%pg\\_attver=%') AS found`;
  return (await source.one<{ found: boolean }>(sql)).found;
}

export interface DumpableRelation {
  oid: number;
  /** Oid of its row type, by which a composite type is dumped. */
  type: number;
  label: string;
}

/** Everything with a row in pg_class that a dump should bring, but for what belongs to an extension. */
export async function readRelations(session: Session): Promise<DumpableRelation[]> {
  const rows = await session.query<{ oid: string; type: string; schema: string; name: string }>(
    `SELECT c.oid::text, c.reltype::text AS type, s.nspname AS schema, c.relname AS name
       FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace
      WHERE ${USER_SCHEMA} AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c') AND c.relpersistence <> 't'
        AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.deptype = 'e' AND
              (d.classid = 'pg_class'::regclass AND d.objid = c.oid OR d.classid = 'pg_type'::regclass AND d.objid = c.reltype))`,
  );
  return rows.map(({ oid, type, schema, name }) => ({
    oid: Number(oid),
    type: Number(type),
    label: displayName(schema, name),
  }));
}

export async function readTablespaces(target: Session): Promise<Set<string>> {
  const rows = await target.query<{ name: string }>(
    `SELECT spcname AS name FROM pg_tablespace WHERE has_tablespace_privilege(oid, 'CREATE')`,
  );
  return new Set(rows.map(({ name }) => name));
}

export const hasSchema = async (session: Session, schema: string): Promise<boolean> =>
  (
    await session.one<{ found: boolean }>('SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1) AS found', [
      schema,
    ])
  ).found;
