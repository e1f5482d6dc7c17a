import { LEDGER_SCHEMA } from '../contract.ts';
import type { Migration } from '../domain/migration.ts';
import { MigrationError } from '../domain/failure.ts';
import type { Session } from './connection.ts';
import { LEDGER_VERSION } from './ledger-version.ts';

/**
 * The bookkeeping on the target database. It shares transactions with what it books, which is what makes a copy
 * exactly-once. Once released, a change of these tables goes with a step in src/postgres/ledger-version.ts.
 */
const TABLES = `
CREATE SCHEMA ${LEDGER_SCHEMA};
COMMENT ON SCHEMA ${LEDGER_SCHEMA} IS 'Bookkeeping of a running migration by pgtransit; dropped when it ends';
REVOKE ALL ON SCHEMA ${LEDGER_SCHEMA} FROM PUBLIC;

-- One row: whose ledger this is.
CREATE TABLE ${LEDGER_SCHEMA}.migration (
  id text PRIMARY KEY,                 -- 12 hex digits
  ledger_version int NOT NULL,
  workflow_id text NOT NULL,
  method text NOT NULL,
  source_system_identifier text NOT NULL,
  source_oid bigint NOT NULL,
  source_version int NOT NULL,
  target_system_identifier text NOT NULL,
  created_database bool NOT NULL,      -- we created it, it was not there
  schema_restored timestamptz,         -- pre-data is in
  started timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE ${LEDGER_SCHEMA}.generation (
  number int PRIMARY KEY,
  name text NOT NULL,                  -- of slot, publication and subscription
  -- closing: its snapshot was lost, and what was not finished under it is in the next one
  state text NOT NULL CHECK (state IN ('open', 'closing', 'sealed', 'streaming')),
  slot bool NOT NULL,                  -- false: none, and no publication: a dump, or closed with nothing finished
  consistent_point pg_lsn,
  snapshot text NOT NULL,
  holder_pid int NOT NULL,
  source_system_identifier text NOT NULL,
  source_timeline int NOT NULL,
  opened timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The schema dump, entry by entry, each with its own SQL, in the order in which pg_restore would run it.
CREATE TABLE ${LEDGER_SCHEMA}.entry (
  position int PRIMARY KEY,
  dump_id int NOT NULL,
  stage text NOT NULL CHECK (stage IN ('pre', 'index', 'key', 'post', 'last')),
  kind text NOT NULL,                  -- pg_dump's word: TABLE, INDEX, FK CONSTRAINT, ACL, …; ours: FK VALIDATION
  label text NOT NULL,                 -- for people
  class_oid bigint NOT NULL,           -- catalog and oid of the object on the source; 0 where it has none
  oid bigint NOT NULL,
  relation bigint,                     -- source oid of the table that an index or key belongs to
  sql text NOT NULL,
  state text NOT NULL DEFAULT 'todo' CHECK (state IN ('todo', 'done', 'skipped')),
  message text,                        -- why it was skipped
  touches int[]                        -- dump ids of the tables that it locks; null: it runs alone
);
CREATE INDEX ON ${LEDGER_SCHEMA}.entry (relation) WHERE state = 'todo';

-- What holds rows and is in scope, as the snapshot saw it.
CREATE TABLE ${LEDGER_SCHEMA}.relation (
  oid bigint PRIMARY KEY,              -- on the source
  schema text NOT NULL,
  name text NOT NULL,
  target_schema text NOT NULL,         -- another relation only where rows must be routed by the target (hash of an enum)
  target_name text NOT NULL,
  columns text[] NOT NULL,             -- in order, without generated ones
  format text NOT NULL CHECK (format IN ('binary', 'text')),
  condition text,                      -- extension configuration tables: only these rows
  published bool NOT NULL,
  generation int NOT NULL,
  bytes bigint NOT NULL,               -- of the heap with its TOAST
  pages bigint NOT NULL,
  filenode text NOT NULL               -- as the snapshot saw it
);

-- Tables that are copied in ranges of their key, each range with a publication of its own.
CREATE TABLE ${LEDGER_SCHEMA}.key_range (
  relation bigint NOT NULL,            -- on the source
  number int NOT NULL,                 -- of the table's ranges
  publication text NOT NULL UNIQUE,
  condition text NOT NULL,             -- of the publication, and of the copy
  generation int NOT NULL,             -- that has copied it, or is to
  PRIMARY KEY (relation, number)
);

-- state 'done' is written in the transaction that does the work; there is no 'running': the row lock is the claim.
CREATE TABLE ${LEDGER_SCHEMA}.unit (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  generation int NOT NULL,
  kind text NOT NULL CHECK (kind IN ('copy', 'index', 'key')),
  relation bigint NOT NULL,
  label text NOT NULL,                 -- for people: the table, the index
  first_page bigint,                   -- ctid range [first_page, end_page) of a split table; null: the whole table
  end_page bigint,
  key_range int,                       -- of a table that is copied in ranges of its key
  tiny bool NOT NULL DEFAULT false,    -- copied about a hundred in one transaction, with their indexes and keys
  bytes bigint NOT NULL,
  position int,                        -- index: the entry
  state text NOT NULL DEFAULT 'todo' CHECK (state IN ('todo', 'done', 'skipped')),
  rows bigint,
  seconds float8,
  finished timestamptz
);
CREATE INDEX ON ${LEDGER_SCHEMA}.unit (kind, bytes DESC, id) WHERE state = 'todo';
CREATE INDEX ON ${LEDGER_SCHEMA}.unit (relation) WHERE state = 'todo';

-- Parts of the replicated tables that are compared while they stream, again and again.
CREATE TABLE ${LEDGER_SCHEMA}.comparison (
  relation bigint NOT NULL,            -- on the source
  number int NOT NULL,
  condition text NOT NULL,             -- a range of the key; '': all rows
  bytes bigint NOT NULL,
  looked timestamptz,                  -- null: not yet, or a difference was found, which is to be looked at first
  equal timestamptz,                   -- when it was last seen to be the same on both sides
  seconds float8,                      -- that it took to look
  source_version text,                 -- of the table, from before it was seen to be the same; null: not known
  target_version text,
  difference text,                     -- a sentence
  PRIMARY KEY (relation, number)
);

-- The sessions of each lane's latest attempt, so that a retry ends those of the attempt before it, and no others.
CREATE TABLE ${LEDGER_SCHEMA}.lane (
  kind text NOT NULL,
  lane int NOT NULL,
  server text NOT NULL CHECK (server IN ('source', 'target')),
  pid int NOT NULL,
  backend_start text NOT NULL,
  PRIMARY KEY (kind, lane, server)
);

-- What was done and when, and the warnings for the report.
CREATE TABLE ${LEDGER_SCHEMA}.event (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  step text NOT NULL,
  warning bool NOT NULL,
  message text NOT NULL,
  UNIQUE (step, message)               -- a step that runs twice says it once
);
`;

export const ledgerExists = async (target: Session): Promise<boolean> =>
  (await target.one<{ found: boolean }>('SELECT to_regnamespace($1) IS NOT NULL AS found', [LEDGER_SCHEMA])).found;

/**
 * Makes the ledger, or finds that it is already ours. Runs inside the caller's transaction.
 * @throws MigrationError `AnotherMigration` when the database holds the ledger of another migration.
 */
export async function createLedger(
  target: Session,
  migration: Migration,
  createdDatabase: boolean,
): Promise<{ created: boolean }> {
  if (await ledgerExists(target)) {
    await requireOwnLedger(target, migration);
    return { created: false };
  }
  await target.query(TABLES);
  await target.query(
    `INSERT INTO ${LEDGER_SCHEMA}.migration
       (id, ledger_version, workflow_id, method, source_system_identifier, source_oid, source_version, target_system_identifier, created_database)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
    [
      migration.id,
      LEDGER_VERSION,
      migration.workflowId,
      migration.method,
      migration.servers.source.systemIdentifier,
      migration.sourceOid,
      migration.servers.source.version,
      migration.servers.target.systemIdentifier,
      createdDatabase,
    ],
  );
  return { created: true };
}

/** @throws MigrationError `AnotherMigration` when the ledger is missing or not of this migration. */
export async function requireOwnLedger(target: Session, migration: Migration): Promise<void> {
  const rows = (await ledgerExists(target))
    ? await target.query<{ id: string; workflow_id: string }>(`SELECT id, workflow_id FROM ${LEDGER_SCHEMA}.migration`)
    : [];
  if (rows.some((row) => row.id === migration.id)) return;
  const owner = rows[0];
  throw new MigrationError(
    'AnotherMigration',
    owner === undefined
      ? `The bookkeeping schema "${LEDGER_SCHEMA}" of this migration is gone from database "${migration.database}" on the target.`
      : `Database "${migration.database}" on the target belongs to another migration, workflow "${owner.workflow_id}".`,
    { object: migration.database },
  );
}

export async function dropLedger(target: Session): Promise<void> {
  await target.query(`DROP SCHEMA IF EXISTS ${LEDGER_SCHEMA} CASCADE`);
}

/** Books something for the report. A step that runs again with the same words books it once. */
export async function recordEvent(target: Session, step: string, message: string, warning = false): Promise<void> {
  await target.query(
    `INSERT INTO ${LEDGER_SCHEMA}.event (step, warning, message) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
    [step, warning, message],
  );
}

export const recordWarning = (target: Session, step: string, message: string): Promise<void> =>
  recordEvent(target, step, message, true);
