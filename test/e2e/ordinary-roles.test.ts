import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import type { PostgresServer } from '../../lab/postgres-server.ts';
import { withAivenExtras } from '../support/aiven-extras.ts';
import { followRemedies } from '../support/follow-remedies.ts';
import type { LiveMigrationOptions } from '../support/live-migration.ts';
import { expectEqual, leftovers, startMigration } from '../support/live-migration.ts';
import {
  askingServer,
  asMover,
  BARE_ROLE,
  OWNERS_AND_GRANTS,
  PASSWORD,
  SHOP_SCHEMA,
  SOURCE_RIGHTS,
  SOURCE_ROLES,
  targetRights,
} from '../support/ordinary-roles.ts';
import { startTraffic } from '../support/traffic.ts';
import { eventually } from '../support/workflow-harness.ts';

const PATIENCE_MS = 180_000;

interface Servers {
  source: PostgresServer;
  target: PostgresServer;
}

/** Two servers that ask for passwords, with the databases on the source, and a role that may do nothing on either. */
async function withShops(
  [from, to]: [number, number],
  { databases, extras }: { databases: string[]; extras?: 'trusted' | 'for superusers' },
  work: (servers: Servers) => Promise<void>,
): Promise<void> {
  const copy = extras === undefined ? undefined : withAivenExtras(to, extras === 'trusted');
  const [source, target] = await Promise.all([askingServer(from), askingServer(to, copy?.binDir)]);
  try {
    await source.psql('postgres', SOURCE_ROLES + BARE_ROLE);
    await target.psql('postgres', BARE_ROLE);
    for (const database of databases) {
      await source.psql('postgres', `CREATE DATABASE ${database} OWNER app_owner`);
      await source.psql(database, SHOP_SCHEMA.replaceAll('shop', database));
    }
    await work({ source, target });
  } finally {
    await Promise.all([source.remove(), target.remove()]);
    copy?.remove();
  }
}

/** Migrates while the application writes to "shop", and fails with each thing that is not on the target as it was. */
async function expectMigrated(
  { source, target }: Servers,
  databases: string[],
  options: Pick<LiveMigrationOptions, 'plan' | 'first'>,
): Promise<void> {
  const traffic = startTraffic(source.uri('shop', { user: 'app', password: PASSWORD }), 50);
  const env = { SOURCE_SERVICE_URI: asMover(source), TARGET_SERVICE_URI: asMover(target) };
  const migration = await startMigration({ source, target, env, databases, ...options });
  try {
    const phases = async () => {
      if ((await migration.handle.describe()).status.name !== 'RUNNING') await migration.report();
      return (await migration.progress()).databases.map(({ phase }) => phase);
    };
    const awaited = databases.map((database) => (database === 'shop' ? 'streaming' : 'done'));
    await eventually(phases, (seen) => seen.join() === awaited.join(), 60_000);
    const before = traffic.committed();
    await eventually(
      () => Promise.resolve(traffic.committed()),
      (committed) => committed > before + 10,
    );
    await migration.signalStop();
    const report = await migration.report();
    await traffic.stop();
    // Until 14 it belongs to a superuser, from 15 on to whoever owns the database.
    const warnings =
      source.major < 15 && target.major >= 15
        ? [expect.stringMatching(/^SCHEMA public keeps another owner/) as string]
        : [];
    expect(report.databases).toMatchObject(
      databases.map((database) =>
        database === 'shop'
          ? { database, status: 'done', method: 'replication', walAfterMarkBytes: 0, warnings }
          : { database, status: 'done', method: 'dump', warnings },
      ),
    );
    await expectEqual(source, target, databases);
    expect(await leftovers(source, target, databases)).toEqual([]);
    for (const database of databases) {
      const list = (await source.psql(database, OWNERS_AND_GRANTS)).split('\n');
      expect((await target.psql(database, OWNERS_AND_GRANTS)).split('\n')).toEqual(list);
    }
    // How its first letters look however the rest is quoted.
    for (const server of [source, target]) expect(readFileSync(server.logFile, 'utf8')).not.toMatch(/p(@|%40)ss/);
  } finally {
    await traffic.stop();
    await migration.close();
  }
}

describe('by roles that are no superusers', () => {
  test.each<[number, number, 'trusted' | undefined]>([
    [17, 17, undefined],
    [14, 14, 'trusted'],
  ])(
    'a migration from %i to %i, with aiven_extras %s, ends with every row, sequence, owner and grant equal, and nothing left behind',
    { timeout: PATIENCE_MS },
    async (from, to, extras) => {
      const databases = ['quiet', 'shop'];
      await withShops([from, to], { databases, ...(extras && { extras }) }, async (servers) => {
        await servers.source.psql('postgres', SOURCE_RIGHTS);
        await servers.source.psql('quiet', 'SET ROLE app_owner; CREATE TABLE without_key AS SELECT 1 AS a');
        await servers.target.psql('postgres', targetRights(to));
        await expectMigrated(servers, databases, { plan: { stop: { fence: 'read-only' } } });
        if (extras === undefined) return;
        const left = `SELECT extname FROM pg_extension WHERE extname ~ 'aiven' UNION ALL SELECT nspname FROM pg_namespace WHERE nspname ~ 'aiven'`;
        expect(await servers.target.psql('shop', left)).toBe('');
      });
    },
  );

  test.each<[number, number, 'for superusers' | undefined]>([
    [15, 18, undefined],
    [14, 15, 'for superusers'],
  ])(
    'from %i to %i, with aiven_extras %s, who does nothing but what validateCluster says comes from a bare role to a migration',
    { timeout: PATIENCE_MS },
    async (from, to, extras) => {
      await withShops([from, to], { databases: ['shop'], ...(extras && { extras }) }, async (servers) => {
        const plan = { method: 'replication', stop: { fence: 'read-only' } };
        let followed: string[] = [];
        await expectMigrated(servers, ['shop'], {
          plan,
          first: async (client, taskQueue) => {
            const asked = { ...plan, databases: { include: ['shop'] } };
            followed = await followRemedies(client, taskQueue, { ...servers, plan: asked });
          },
        });
        expect(followed.length).toBeGreaterThan(5);
        for (const server of [servers.source, servers.target])
          expect(await server.psql('postgres', `SELECT pg_has_role('mover', 'postgres', 'MEMBER')`)).toBe('f');
      });
    },
  );
});
