import type { ArchiveEntry } from './archive-script.ts';
import { displayName, quoteIdent, quoteName } from './identifier.ts';

/**
 * When an entry of the schema runs: `pre` before the rows, `index` when a table's rows are in, `key` when its indexes
 * are (alone, because two of them on one table deadlock), `post` when all tables are done, `last` when our own
 * sessions are over: event triggers and database settings would hit those.
 */
export type Stage = 'pre' | 'index' | 'key' | 'post' | 'last';

/** A row of the ledger's `entry`, but for its position. */
export interface StagedEntry {
  dumpId: number;
  stage: Stage;
  kind: string;
  label: string;
  classOid: number;
  oid: number;
  /** Oid of the table on the source, for the stages `index` and `key` and for what validates a foreign key. */
  relation: number | null;
  /** What it locks, by dump ids: entries without one in common may run beside each other. Null: it runs alone. */
  touches: readonly number[] | null;
  sql: string;
}

/** An index of an ordinary table or leaf partition, as the source describes it. */
export interface IndexFact {
  relation: number;
  /** Of the statement that makes it, as pg_get_indexdef writes it. */
  definition: string;
  /** Of a primary key or unique constraint; null for a plain index. */
  constraint: { schema: string; table: string; name: string; index: string; clause: string } | null;
  /** Something that makes the constraint impossible to build in two steps, or its text impossible to take apart. */
  unusual: boolean;
}

/** A foreign key of a large table whose rows can be checked after it was added. */
export interface ForeignKeyFact {
  /** Oid of the table that has it. */
  relation: number;
  schema: string;
  table: string;
  name: string;
}

export interface StagingFacts {
  /** By the oid of the index or of the constraint. */
  indexes: ReadonlyMap<number, IndexFact>;
  /** By the oid of the constraint. */
  foreignKeys: ReadonlyMap<number, ForeignKeyFact>;
  /** Clones of a partitioned table's trigger: their states are carried by statements of our own. */
  triggerClones: ReadonlySet<number>;
  excludedExtensions: readonly string[];
  /** Whether grants are wanted. */
  privileges: boolean;
  /** Those of the target. */
  tablespaces: ReadonlySet<string>;
  /** Of entries that came before and only touch tables. */
  tables: ReadonlySet<number>;
}

const PG_CLASS = 1259;
const PG_CONSTRAINT = 2606;

/** Kinds that come another way: the database by createDatabase, rows by the copy; and subscriptions, which would start. */
export const NOT_CARRIED: readonly string[] = [
  'DATABASE',
  'SUBSCRIPTION',
  'SUBSCRIPTION TABLE',
  'TABLE DATA',
  'SEQUENCE SET',
  'STATISTICS DATA',
  'BLOB',
  'BLOBS',
  'BLOB METADATA',
  'MATERIALIZED VIEW DATA',
];

export const GRANTS: readonly string[] = ['ACL', 'DEFAULT ACL'];

export const FOREIGN_KEY = 'FK CONSTRAINT';
/** Not pg_dump's: the second half of a foreign key that was split. */
export const FOREIGN_KEY_VALIDATION = 'FK VALIDATION';

export const OUR_PUBLICATION = /^pgtransit_[0-9a-f]{12}_[gk]\d+( |$)/;

export function stageEntry(entry: ArchiveEntry, facts: StagingFacts): StagedEntry[] {
  const { kind, name } = entry;
  if (NOT_CARRIED.includes(kind) || (kind.startsWith('PUBLICATION') && OUR_PUBLICATION.test(name))) return [];
  if (!facts.privileges && GRANTS.includes(kind)) return [];
  if (isOfExcludedExtension(entry, facts.excludedExtensions) || facts.triggerClones.has(entry.oid)) return [];
  const staged = {
    dumpId: entry.dumpId,
    kind,
    label: labelOf(entry),
    classOid: entry.classOid,
    oid: entry.oid,
    relation: null,
    touches: null,
  };
  const index = indexOf(entry, facts);
  if (index !== null) {
    const parts = splitIndex(entry, index);
    return parts.map(({ stage, sql }) => ({
      ...staged,
      stage,
      relation: index.relation,
      sql: stored({ ...entry, sql }, facts),
    }));
  }
  const foreignKey = kind === FOREIGN_KEY ? facts.foreignKeys.get(entry.oid) : undefined;
  if (foreignKey !== undefined) {
    return [
      { ...staged, stage: 'post', touches: touchedBy(entry, facts), sql: notValid(entry.sql) },
      {
        ...{ ...staged, kind: FOREIGN_KEY_VALIDATION, stage: 'post', relation: foreignKey.relation },
        sql: `ALTER TABLE ${quoteName(foreignKey.schema, foreignKey.table)} VALIDATE CONSTRAINT ${quoteIdent(foreignKey.name)};\n`,
      },
    ];
  }
  const [touches, sql] = [touchedBy(entry, facts), stored({ ...entry, sql: unlessThere(entry) }, facts)];
  return [{ ...staged, stage: otherStage(entry), touches, sql }];
}

/** These lock nothing but tables and their sequences, which pg_dump names among what they depend on. */
const OF_THEIR_OWN: readonly string[] = ['TABLE', 'SEQUENCE'];
const OF_TABLES: readonly string[] = ['SEQUENCE OWNED BY', 'DEFAULT', 'COMMENT', FOREIGN_KEY];

function touchedBy({ kind, dumpId, dependsOn }: ArchiveEntry, { tables }: StagingFacts): number[] | null {
  const touched = dependsOn.filter((id) => tables.has(id));
  return OF_THEIR_OWN.includes(kind) || (OF_TABLES.includes(kind) && touched.length > 0) ? [dumpId, ...touched] : null;
}

/** The target was found empty, but for extensions: where a provider has put one in, the schema that it makes is there. */
const unlessThere = ({ kind, sql }: ArchiveEntry): string =>
  kind === 'SCHEMA' ? sql.replace(/^CREATE SCHEMA /, 'CREATE SCHEMA IF NOT EXISTS ') : sql;

export function isOfExcludedExtension({ kind, name }: ArchiveEntry, excluded: readonly string[]): boolean {
  if (kind === 'EXTENSION') return excluded.includes(name);
  // A comment's name is the SQL behind COMMENT ON, quoted where it must be.
  return (
    kind === 'COMMENT' &&
    excluded.some((extension) => [extension, quoteIdent(extension)].some((n) => name === `EXTENSION ${n}`))
  );
}

function indexOf({ kind, classOid, oid }: ArchiveEntry, { indexes }: StagingFacts): IndexFact | null {
  const isIndex = (kind === 'INDEX' && classOid === PG_CLASS) || (kind === 'CONSTRAINT' && classOid === PG_CONSTRAINT);
  return isIndex ? (indexes.get(oid) ?? null) : null;
}

function otherStage({ kind, name, schema, preData }: ArchiveEntry): Stage {
  if (kind === 'EVENT TRIGGER' || kind === 'DATABASE PROPERTIES') return 'last';
  if (schema === null && /^(ACL|COMMENT|SECURITY LABEL)$/.test(kind) && /^(DATABASE|EVENT TRIGGER) /.test(name))
    return 'last';
  if (GRANTS.includes(kind)) return 'post';
  return preData ? 'pre' : 'post';
}

/** The statement that builds the index, and what may only follow when no other index of the table is being built. */
function splitIndex({ kind, sql }: ArchiveEntry, index: IndexFact): { stage: Stage; sql: string }[] {
  const build = `${index.definition};\n`;
  if (kind === 'INDEX') {
    if (!sql.startsWith(build)) return [{ stage: 'key', sql }];
    const rest = sql.slice(build.length).trim();
    return [{ stage: 'index', sql: build }, ...(rest === '' ? [] : [{ stage: 'key' as const, sql: `${rest}\n` }])];
  }
  // pg_dump writes ADD CONSTRAINT on two lines; what follows marks it: CLUSTER ON, REPLICA IDENTITY, COMMENT.
  const first = /^ALTER TABLE ONLY [^\n]+\n {4}ADD CONSTRAINT [^\n]+;\n/.exec(sql)?.[0];
  if (index.constraint === null || index.unusual || first === undefined) return [{ stage: 'key', sql }];
  const { schema, table, name, index: indexName, clause } = index.constraint;
  const add = `ALTER TABLE ONLY ${quoteName(schema, table)}\n    ADD CONSTRAINT ${quoteIdent(name)} ${clause.replace('%INDEX%', () => quoteIdent(indexName))};\n`;
  return [
    { stage: 'index', sql: build },
    { stage: 'key', sql: add + sql.slice(first.length) },
  ];
}

/** Of a statement that adds a constraint: without a look at the rows. */
export const notValid = (sql: string): string => sql.trim().replace(/;$/, ' NOT VALID;\n');

/**
 * Validations come after all foreign keys, beside each other, and before whatever else comes after the rows: policies
 * would hide rows from who validates.
 */
export class ValidationOrder {
  #waiting: StagedEntry[] = [];

  place(entries: readonly StagedEntry[]): StagedEntry[] {
    return entries.flatMap((entry) => {
      if (entry.kind === FOREIGN_KEY_VALIDATION) {
        this.#waiting.push(entry);
        return [];
      }
      return entry.kind === FOREIGN_KEY || entry.kind === 'COMMENT' ? [entry] : [...this.rest(), entry];
    });
  }

  rest(): StagedEntry[] {
    const waiting = this.#waiting;
    this.#waiting = [];
    return waiting;
  }
}

/** pg_restore sets these for whatever follows; here each entry runs on its own. A missing tablespace: the default. */
function stored({ sql, tablespace, accessMethod }: ArchiveEntry, { tablespaces }: StagingFacts): string {
  const settings: [string, string, string][] = [];
  if (tablespace !== null && tablespaces.has(tablespace))
    settings.push(['default_tablespace', quoteIdent(tablespace), "''"]);
  if (accessMethod !== null) settings.push(['default_table_access_method', quoteIdent(accessMethod), 'heap']);
  const before = settings.map(([setting, value]) => `SET LOCAL ${setting} = ${value};\n`).join('');
  const after = settings.map(([setting, , usual]) => `SET LOCAL ${setting} = ${usual};\n`).join('');
  return before + sql + after;
}

/** Kinds whose name is one name; of others it is a table and a constraint, a function and its arguments, … */
const NAMED: readonly string[] = [
  'TABLE',
  'VIEW',
  'MATERIALIZED VIEW',
  'SEQUENCE',
  'FOREIGN TABLE',
  'INDEX',
  'TYPE',
  'DOMAIN',
];

export function labelOf({ kind, schema, name }: ArchiveEntry): string {
  if (schema === null) return `${kind} ${name}`;
  return `${kind} ${NAMED.includes(kind) ? displayName(schema, name) : `${schema}.${name}`}`;
}
