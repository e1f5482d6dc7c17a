import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { inject } from 'vitest';
import { postgresAccess, type PostgresAccess } from '../../lab/postgres-access.ts';
import { startPostgres } from '../../lab/postgres-server.ts';
import { testMajors } from '../../lab/tools.ts';

declare module 'vitest' {
  export interface ProvidedContext {
    /** host:port of the Temporal server of the run. */
    temporalAddress: string;
    /** A file with the bundled workflows; null while there is no workflows/index.ts. */
    workflowBundlePath: string | null;
    /** Port of the shared PostgreSQL server of each major. */
    postgresPorts: Record<number, number>;
  }
}

const named = new Map<string, Promise<PostgresAccess>>();

/**
 * A running PostgreSQL server. Without a name it is the one of its major that all test files share: make databases of
 * your own on it (`createDatabase`), and neither restart it nor touch what belongs to the whole cluster. With a name it
 * is this test file's own and ends with it; to restart or kill a server, use `startPostgres`.
 */
export function useServer(major: number, name?: string): Promise<PostgresAccess> {
  if (name === undefined) return Promise.resolve(sharedServer(major));
  const key = `${major} ${name}`;
  const server = named.get(key) ?? startPostgres({ major });
  named.set(key, server);
  return server;
}

function sharedServer(major: number): PostgresAccess {
  const port = inject('postgresPorts')[major];
  if (port !== undefined) return postgresAccess(major, port);
  throw new Error(
    `This test run has no PostgreSQL ${major}, only ${testMajors.join(', ')}: put it into PGTRANSIT_PG_MAJORS.`,
  );
}

/** Makes a database on the server of `uri`, and gives its name and its URI. The default name is unique. */
export async function createDatabase(
  uri: string,
  name = `test_${randomBytes(6).toString('hex')}`,
): Promise<{ name: string; uri: string }> {
  await connected(uri, (client) => client.query(`CREATE DATABASE ${pg.escapeIdentifier(name)} TEMPLATE template0`));
  const database = new URL(uri);
  database.pathname = `/${encodeURIComponent(name)}`;
  return { name, uri: database.href };
}

/** Drops a database and ends its sessions. Does nothing when there is none. */
export async function dropDatabase(uri: string, name: string): Promise<void> {
  await connected(uri, async (client) => {
    const { rows } = await client.query<{ old: boolean }>(
      `SELECT current_setting('server_version_num')::int < 130000 AS old`,
    );
    const isOld = rows[0]?.old === true; // without FORCE
    if (isOld) await client.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1', [name]);
    await client.query(`DROP DATABASE IF EXISTS ${pg.escapeIdentifier(name)} ${isOld ? '' : 'WITH (FORCE)'}`);
  });
}

async function connected(uri: string, work: (client: pg.Client) => Promise<unknown>): Promise<void> {
  const client = new pg.Client({ connectionString: uri });
  await client.connect();
  try {
    await work(client);
  } finally {
    await client.end();
  }
}
