import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { expectEqual, leftovers, startMigration } from '../support/live-migration.ts';
import {
  askingServer,
  asMover,
  FENCE_RIGHTS,
  OWNERS_AND_GRANTS,
  PASSWORD,
  SHOP_SCHEMA,
  SOURCE_ROLES,
  targetRoles,
} from '../support/ordinary-roles.ts';
import { startTraffic } from '../support/traffic.ts';

const PATIENCE_MS = 180_000;

async function shops(from: number, to: number) {
  const [source, target] = await Promise.all([askingServer(from), askingServer(to)]);
  await source.psql('postgres', SOURCE_ROLES);
  await source.psql('postgres', 'CREATE DATABASE shop OWNER app_owner');
  await source.psql('shop', SHOP_SCHEMA);
  await target.psql('postgres', targetRoles(to));
  const env = { SOURCE_SERVICE_URI: asMover(source), TARGET_SERVICE_URI: asMover(target) };
  return { source, target, env, remove: () => Promise.all([source.remove(), target.remove()]) };
}

/** No superuser on either side; both servers ask for passwords. */
describe.each([
  [16, 18],
  [17, 17],
])('by roles that are no superusers, from %i to %i', (from, to) => {
  test(
    'a live migration ends with every row, sequence, owner and grant equal, and nothing left behind',
    { timeout: PATIENCE_MS },
    async () => {
      const { source, target, env, remove } = await shops(from, to);
      await source.psql('postgres', FENCE_RIGHTS);
      const traffic = startTraffic(source.uri('shop', { user: 'app', password: PASSWORD }), 50);
      const migration = await startMigration({
        ...{ source, target, env, databases: ['shop'] },
        plan: { method: 'replication', stop: { fence: 'read-only' } },
      });
      try {
        await migration.phase('streaming', 120_000);
        const before = traffic.committed();
        await migration.signalStop();
        const report = await migration.report();
        await traffic.stop();
        console.log(JSON.stringify(report, null, 1));
        expect(traffic.committed()).toBeGreaterThan(before);
        expect(report.databases[0]).toMatchObject({
          status: 'done',
          method: 'replication',
          walAfterMarkBytes: 0,
          warnings: [],
        });
        await expectEqual(source, target, ['shop']);
        expect(await leftovers(source, target, ['shop'])).toEqual([]);
        const list = (await source.psql('shop', OWNERS_AND_GRANTS)).split('\n');
        expect((await target.psql('shop', OWNERS_AND_GRANTS)).split('\n')).toEqual(list);
        for (const server of [source, target]) expect(readFileSync(server.logFile, 'utf8')).not.toContain('p@ss');
      } finally {
        await traffic.stop();
        await migration.close();
        await remove();
      }
    },
  );
});
