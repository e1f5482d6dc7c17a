import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import type { PostgresServer } from '../lab/postgres-server.ts';
import { startPostgres } from '../lab/postgres-server.ts';

/**
 * The same for every method and both servers. Reported with the result, since all figures depend on them.
 *
 * fsync is off because the disk of whoever runs this is not what is measured. Checkpoints and autovacuum are off because
 * they would fall into one method's time and not into another's. The rest is PostgreSQL's default, or what anybody
 * gives a target that is about to be filled.
 */
export const SERVER_SETTINGS: Readonly<Record<string, string>> = {
  shared_buffers: '1GB',
  max_wal_size: '10GB',
  checkpoint_timeout: '1h',
  autovacuum: 'off',
  wal_level: 'logical',
  fsync: 'off',
  synchronous_commit: 'on',
  full_page_writes: 'on',
};

export interface Servers {
  source: PostgresServer;
  target: PostgresServer;
}

export async function startServers(majors: { source: number; target: number }): Promise<Servers> {
  const [source, target] = await Promise.all(
    [majors.source, majors.target].map((major) => startPostgres({ major, settings: SERVER_SETTINGS })),
  );
  if (source === undefined || target === undefined) throw new Error('Two servers were asked for.');
  return { source, target };
}

/**
 * As if nothing had been before: no trace of the method before, nothing left to write of what it did. `keep`: what it
 * made is only put aside, until `dropKept`.
 */
export async function equalize(
  { source, target }: Servers,
  database: string,
  { create, keep }: { create: boolean; keep: boolean },
): Promise<void> {
  await leaveTarget(target, database, keep);
  await cleanSource(source, database);
  await Promise.all([source.psql('postgres', 'CHECKPOINT'), target.psql('postgres', 'CHECKPOINT')]);
  await promisify(execFile)('sync', ['-f', target.dataDir]);
  if (create) await target.psql('postgres', `CREATE DATABASE ${database}`);
}

export const dropKept = async ({ target }: Servers, database: string): Promise<void> => {
  await target.psql(
    'postgres',
    `SELECT format('DROP DATABASE %I', datname) FROM pg_database WHERE datname ~ '^${database}_kept_' \\gexec`,
  );
};

/** The subscriptions of a method that failed would keep the database from being dropped. */
async function leaveTarget(target: PostgresServer, database: string, keep: boolean): Promise<void> {
  const oid = await target.psql('postgres', `SELECT oid FROM pg_database WHERE datname = '${database}'`);
  if (oid === '') return;
  await target.psql(
    database,
    `SELECT format('ALTER SUBSCRIPTION %I DISABLE', subname), format('ALTER SUBSCRIPTION %I SET (slot_name = NONE)', subname), format('DROP SUBSCRIPTION %I', subname)
       FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()) \\gexec`,
  );
  if (!keep) return void (await target.psql('postgres', `DROP DATABASE ${database} WITH (FORCE)`));
  await target.psql('postgres', endSessionsOf(database));
  await target.psql('postgres', `ALTER DATABASE ${database} RENAME TO ${database}_kept_${oid}`);
}

const endSessionsOf = (database: string): string =>
  `SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '${database}' AND pid <> pg_backend_pid();`;

async function cleanSource(source: PostgresServer, database: string): Promise<void> {
  await source.psql(
    database,
    `${endSessionsOf(database)}
     SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database();
     SELECT format('DROP PUBLICATION %I', pubname) FROM pg_publication \\gexec`,
  );
}
