import { afterAll, beforeAll, expect, test } from 'vitest';
import type { PostgresServer } from '../../lab/postgres-server.ts';
import { startPostgres } from '../../lab/postgres-server.ts';
import { leftovers, startMigration } from '../support/live-migration.ts';
import { MONEY_SCHEMA, startMoney } from '../support/money.ts';
import { eventually } from '../support/workflow-harness.ts';

/** More of them by hand: what they are about is what happens seldom. */
const ROUNDS = Number(process.env.PGTRANSIT_ROLLBACK_ROUNDS ?? '1');

let source: PostgresServer;
let target: PostgresServer;
beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres({ major: 17 }), startPostgres({ major: 18 })]);
});
afterAll(() => Promise.all([source.remove(), target.remove()]));

test(
  'money that is moved during a cutover, on the target, and during a rollback is there once, whoever is killed',
  { timeout: ROUNDS * 120_000 },
  async () => {
    for (let round = 1; round <= ROUNDS; round += 1) {
      const database = `bank_${round}`;
      await source.psql('postgres', `CREATE DATABASE ${database}`);
      await source.psql(database, MONEY_SCHEMA);
      const fence = round % 2 === 0 ? 'lock-out' : 'read-only';
      const migration = await startMigration({
        ...{ source, target, databases: [database] },
        plan: { stop: { fence, deadlineSeconds: 120 }, reverse: {}, verify: 'full' },
      });
      await source
        .psql('postgres', 'CREATE ROLE app LOGIN; GRANT pg_read_all_data, pg_write_all_data TO app')
        .catch(() => undefined);
      await target
        .psql('postgres', 'CREATE ROLE app LOGIN; GRANT pg_read_all_data, pg_write_all_data TO app')
        .catch(() => undefined);
      const money = startMoney(source.uri(database, { user: 'app' }), 4);
      const moved = async (atLeast: number) => {
        const before = money.acknowledged();
        await eventually(
          () => Promise.resolve(money.acknowledged()),
          (now) => now >= before + atLeast,
          60_000,
        );
      };
      try {
        await migration.phase('streaming');
        await moved(200);
        await migration.signalStop();
        if (round % 3 === 0) await migration.killWorker();
        await migration.phase('reversing', 120_000);
        money.lead(target.uri(database, { user: 'app' }));
        await moved(500);
        await migration.handle.executeUpdate('rollback');
        if (round % 3 === 1) await migration.killWorker();
        const report = await migration.report();
        expect(report.databases[0]).toMatchObject({
          ...{ status: 'rolled-back', walAfterMarkBytes: 0 },
          cutover: { fence, verified: { tables: 2, ofTables: 2 } },
        });
        money.lead(source.uri(database, { user: 'app' }));
        await moved(200);
        await money.stop();
        expect(await money.problems(source.uri(database))).toEqual([]);
        expect(await leftovers(source, target, [database])).toEqual([]);
        if (ROUNDS > 1) console.log(`round ${round}: ${money.acknowledged()} transfers, ${fence}`);
      } finally {
        await money.stop();
        await migration.close();
      }
    }
  },
);
