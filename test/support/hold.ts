import pg from 'pg';
import type { PostgresAccess } from '../../lab/postgres-access.ts';
import { TRAFFIC_SCHEMA } from './traffic.ts';
import { eventually } from './workflow-harness.ts';

/** Where a migration can be held on the target: numbers of advisory locks that its rows, index or view wait for. */
export const PLACE = { copy: 1, index: 2, view: 3 } as const;

/**
 * Traffic's tables, and objects that wait, on the server where somebody holds their lock: the rows of `held` while they
 * are copied, the index of `indexed` while it is built, the view `waiting` while it is filled. All over 1 MB, so that
 * each table is a copy unit of its own.
 */
export const HOLD_SCHEMA = `${TRAFFIC_SCHEMA}
CREATE FUNCTION public.wait_at(place int, value int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
  $$ BEGIN PERFORM pg_advisory_xact_lock_shared(place); RETURN value; END $$;
CREATE TABLE held (id int PRIMARY KEY, filler text, CHECK (public.wait_at(${PLACE.copy}, id) = id));
CREATE TABLE indexed (id int PRIMARY KEY, filler text);
CREATE TABLE other (id int PRIMARY KEY, filler text);
INSERT INTO held SELECT g, repeat('h', 1000) FROM generate_series(1, 1500) g;
INSERT INTO indexed SELECT g, repeat('i', 1000) FROM generate_series(1, 1500) g;
INSERT INTO other SELECT g, repeat('o', 1000) FROM generate_series(1, 1500) g;
CREATE INDEX waits ON indexed (public.wait_at(${PLACE.index}, id));
CREATE MATERIALIZED VIEW waiting AS SELECT public.wait_at(${PLACE.view}, 1) AS one;
`;

/** A function that fails on this server and nowhere else: an index on it cannot be built there. */
export const pickyAbout = ({ port }: PostgresAccess): string =>
  `CREATE FUNCTION picky(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
     $$ BEGIN IF inet_server_port() = ${port} THEN RAISE 'not on this server'; END IF; RETURN i; END $$;`;

/** Mends that. */
export const NOT_PICKY = 'CREATE OR REPLACE FUNCTION picky(i int) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT i $$';

export interface Hold {
  /** Waits until the migration waits for it. */
  reached(): Promise<void>;
  release(): Promise<void>;
}

async function connect(server: PostgresAccess, database: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: server.uri(database), application_name: 'hold' });
  client.on('error', () => undefined); // dropping the database ends it
  await client.connect();
  return client;
}

/** Holds whatever of `database` on this server comes to this place, from now on. */
export async function holdAt(server: PostgresAccess, database: string, place: keyof typeof PLACE): Promise<Hold> {
  const client = await connect(server, database);
  await client.query('SELECT pg_advisory_lock($1)', [PLACE[place]]);
  return {
    reached: () =>
      untilWaiting(
        server,
        database,
        `locktype = 'advisory' AND objid = ${PLACE[place]} AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`,
      ),
    release: () => client.end(),
  };
}

/** Keeps everybody from writing a table; it can be read, so a materialized view of it can be filled. */
export async function lockTable(server: PostgresAccess, database: string, table: string): Promise<Hold> {
  const client = await connect(server, database);
  await client.query(`BEGIN; LOCK TABLE ${table} IN EXCLUSIVE MODE`);
  return {
    reached: () => untilWaiting(server, database, `relation = '${table}'::regclass`),
    release: () => client.end(),
  };
}

async function untilWaiting(server: PostgresAccess, database: string, what: string): Promise<void> {
  const count = () => server.psql(database, `SELECT count(*) FROM pg_locks WHERE NOT granted AND ${what}`);
  await eventually(count, (waiting) => Number(waiting) > 0, 120_000);
}
