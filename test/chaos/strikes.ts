import { spawnSync } from 'node:child_process';
import { rmSync, statfsSync } from 'node:fs';
import path from 'node:path';
import pg from 'pg';
import type { PostgresAccess } from '../../lab/postgres-access.ts';
import type { Side } from './world.ts';

/** What makes it good again. */
export type Heal = () => Promise<void> | void;

/** Ends the sessions of a database for which `which` is true. */
export const end = (server: PostgresAccess, database: string, which: string): Promise<string> =>
  server.psql(
    'postgres',
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${database}' AND ${which}`,
  );

/** Sessions of ours, by their role. */
export const named = (role: string): string => `application_name LIKE 'pgtransit\\_%\\_${role}'`;

export async function crash({ server }: Side): Promise<void> {
  await server.kill();
  await server.start();
}

/** The lock that it needs may be held by the very step that is held. */
export async function ddl(server: PostgresAccess, database: string, statement: string): Promise<void> {
  await server.psql(database, `SET lock_timeout = '2s'; ${statement}`).catch(() => undefined);
}

export function fillDisk({ server, smallDisk }: Side): Promise<Heal> {
  const disk = smallDisk ?? '';
  const filler = path.join(disk, 'filler');
  const { bavail, bsize } = statfsSync(disk);
  spawnSync('fallocate', ['-l', String(bavail * bsize), filler]);
  return Promise.resolve(async () => {
    rmSync(filler, { force: true });
    // A server that could not write its WAL is down.
    await server.start();
  });
}

/** Ours is a superuser's session, so it may take the reserved ones too. */
export async function useUp({ server }: Side): Promise<Heal> {
  const clients: pg.Client[] = [];
  for (;;) {
    try {
      clients.push(await connect(server, 'postgres'));
    } catch {
      break;
    }
  }
  return async () => {
    await Promise.all(clients.map((client) => client.end().catch(() => undefined)));
  };
}

export async function reset(server: PostgresAccess, setting: string): Promise<void> {
  await server.psql('postgres', `ALTER SYSTEM RESET ${setting}; SELECT pg_reload_conf()`);
}

export async function connect(server: PostgresAccess, database: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: server.uri(database), application_name: 'chaos' });
  client.on('error', () => undefined);
  await client.connect();
  return client;
}

/** Its walsender comes back as long as it is there. */
export async function dropSlots({ server }: Side, database: string): Promise<void> {
  await server.psql(
    'postgres',
    `DO $$ DECLARE slot record; BEGIN FOR slot IN SELECT * FROM pg_replication_slots WHERE database = '${database}' LOOP
       FOR attempt IN 1..100 LOOP
         BEGIN
           PERFORM pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = slot.slot_name AND active_pid IS NOT NULL;
           PERFORM pg_drop_replication_slot(slot.slot_name);
           EXIT;
         EXCEPTION WHEN object_in_use THEN PERFORM pg_sleep(0.02);
         END;
       END LOOP;
     END LOOP; END $$`,
  );
}

/** A row that must not be lost, by somebody whom a read-only fence does not keep out. */
export async function writeAround(server: PostgresAccess, database: string): Promise<void> {
  await server.psql(database, `SET default_transaction_read_only = off; INSERT INTO keyless VALUES (96, 'around')`);
}
