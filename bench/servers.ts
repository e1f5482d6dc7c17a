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

/** As if nothing had been before: no trace of the method before, nothing left to write of what it did. */
export async function equalize({ source, target }: Servers, database: string, create: boolean): Promise<void> {
  await dropTarget(target, database);
  await cleanSource(source, database);
  await Promise.all([source.psql('postgres', 'CHECKPOINT'), target.psql('postgres', 'CHECKPOINT')]);
  await promisify(execFile)('sync', ['-f', target.dataDir]);
  if (create) await target.psql('postgres', `CREATE DATABASE ${database}`);
}

/** The subscriptions of a method that failed would keep the database from being dropped. */
async function dropTarget(target: PostgresServer, database: string): Promise<void> {
  const exists = await target.psql('postgres', `SELECT 1 FROM pg_database WHERE datname = '${database}'`);
  if (exists === '') return;
  await target.psql(
    database,
    `SELECT format('ALTER SUBSCRIPTION %I DISABLE', subname), format('ALTER SUBSCRIPTION %I SET (slot_name = NONE)', subname), format('DROP SUBSCRIPTION %I', subname)
       FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()) \\gexec`,
  );
  await target.psql('postgres', `DROP DATABASE ${database} WITH (FORCE)`);
}

async function cleanSource(source: PostgresServer, database: string): Promise<void> {
  await source.psql(
    database,
    `SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid();
     SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database();
     SELECT format('DROP PUBLICATION %I', pubname) FROM pg_publication \\gexec`,
  );
}
