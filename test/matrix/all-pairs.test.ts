import { afterAll, describe, test } from 'vitest';
import { startPostgres, type PostgresServer } from '../../lab/postgres-server.ts';
import { useServer } from '../support/servers.ts';
import { migratePair } from '../support/version-pair.ts';

const SOURCES = [10, 11, 12, 13, 14, 15, 16, 17, 18];
const TARGETS = [14, 15, 16, 17, 18];

/** Sources are the servers that a run shares; targets are others, because a server is not migrated onto itself. */
const targets = new Map<number, Promise<PostgresServer>>();
const targetOf = (major: number): Promise<PostgresServer> => {
  const server = targets.get(major) ?? startPostgres({ major });
  targets.set(major, server);
  return server;
};

const table = new Map<number, Record<string, string>>(SOURCES.map((source) => [source, {}]));

afterAll(async () => {
  console.log('Seconds of a migration from the majors on the left to those on top:');
  console.table(Object.fromEntries(table));
  await Promise.all([...targets.values()].map(async (server) => (await server).remove()));
});

describe.each(SOURCES)('from PostgreSQL %i', (from) => {
  test.each(TARGETS.filter((to) => to >= from))('to %i, nothing is lost and nothing is left', async (to) => {
    const row = table.get(from) ?? {};
    row[to] = 'failed';
    const began = performance.now();
    await migratePair(await useServer(from), await targetOf(to));
    row[to] = ((performance.now() - began) / 1000).toFixed(1);
  });
});
