import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startPostgres, type PostgresServer } from '../../lab/postgres-server.ts';
import { everythingSchema } from '../support/everything-schema.ts';
import { readState } from '../support/everything-state.ts';
import { expectEqual, leftovers, startMigration } from '../support/live-migration.ts';
import { startTraffic } from '../support/traffic.ts';
import { eventually } from '../support/workflow-harness.ts';

const PATIENCE_MS = 240_000;
const DATABASE = 'Every-thing';

const everything = everythingSchema(17);
let source: PostgresServer;
let target: PostgresServer;

beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres({ major: 17 }), startPostgres({ major: 18 })]);
  await source.psql('postgres', everything.roles);
  await source.psql('postgres', `CREATE DATABASE "${DATABASE}" TEMPLATE template0`);
  await source.psql(DATABASE, everything.schema);
  await source.psql(DATABASE, everything.settings);
});

afterAll(() => Promise.all([source.remove(), target.remove()]));

async function expectAllEqual(): Promise<void> {
  await expectEqual(source, target, [DATABASE]);
  // What is stored, and not only what would be after a refresh.
  const stored = (server: PostgresServer) => server.psql(DATABASE, 'SELECT most FROM firm.a_most');
  expect(await stored(target)).toBe(await stored(source));
  expect(await readState(target, target, DATABASE)).toEqual(await readState(target, source, DATABASE));
  expect(await leftovers(source, target, [DATABASE])).toEqual([]);
}

describe('a database with everything in it', () => {
  test('is equal to the source after a dump', { timeout: PATIENCE_MS }, async () => {
    const migration = await startMigration({
      source,
      target,
      databases: [DATABASE],
      plan: { method: 'dump', onError: 'fail', verify: 'full' },
    });
    try {
      const report = await migration.report();
      expect(report.databases[0]).toMatchObject({ status: 'done', method: 'dump', warnings: [] });
      await expectAllEqual();
    } finally {
      await migration.close();
      await target.psql('postgres', `DROP DATABASE IF EXISTS "${DATABASE}"`);
    }
  });

  test(
    'is equal to the source after a replication under writes that fire its triggers',
    { timeout: PATIENCE_MS },
    async () => {
      const traffic = startTraffic(source.uri(DATABASE), 60, everything.writes);
      const migration = await startMigration({
        ...{ source, target, databases: [DATABASE] },
        plan: { method: 'replication', onError: 'fail', stop: { fence: 'read-only' } },
      });
      try {
        await migration.phase('streaming', 120_000);
        const before = traffic.committed();
        await eventually(
          () => Promise.resolve(traffic.committed()),
          (committed) => committed > before + everything.writes.length,
        );
        await migration.signalStop();
        const report = await migration.report();
        await traffic.stop();
        expect(report.databases[0]).toMatchObject({ status: 'done', method: 'replication', walAfterMarkBytes: 0 });
        expect(report.databases[0]?.warnings).toEqual([]);
        await expectAllEqual();
        // The application goes on: sequences, keys and triggers are at work.
        await target.psql(DATABASE, everything.writes.join(';\n'));
      } finally {
        await traffic.stop();
        await migration.close();
      }
    },
  );
});
