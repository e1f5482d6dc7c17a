import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Pgbouncer } from '../../lab/pgbouncer.ts';
import { startPgbouncer } from '../../lab/pgbouncer.ts';
import type { PostgresServer } from '../../lab/postgres-server.ts';
import { startPostgres } from '../../lab/postgres-server.ts';
import { lockTable } from '../support/hold.ts';
import { leftovers, startMigration } from '../support/live-migration.ts';
import { eventually } from '../support/workflow-harness.ts';

const DATABASE = 'pooled';

let source: PostgresServer;
let target: PostgresServer;
let bouncer: Pgbouncer;
beforeAll(async () => {
  [source, target, bouncer] = await Promise.all([
    startPostgres({ major: 17 }),
    startPostgres({ major: 18 }),
    startPgbouncer({}),
  ]);
});
afterAll(() => Promise.all([bouncer.remove(), source.remove(), target.remove()]));

const at = ({ port }: PostgresServer): string => `host=127.0.0.1 port=${port} dbname=${DATABASE} user=postgres`;

/** One connection, which no error may meet. */
async function startClient(uri: string) {
  const client = new pg.Client({ connectionString: uri });
  await client.connect();
  let written = 0;
  let stopping = false;
  const running = (async () => {
    for (; !stopping; written += 1) await client.query('INSERT INTO public.entry (n) VALUES ($1)', [written]);
    await client.end();
  })();
  running.catch(() => undefined);
  const more = (count: number) => {
    const before = written;
    return eventually(
      () => Promise.resolve(written),
      (now) => now > before + count,
      60_000,
    );
  };
  const stop = () => {
    stopping = true;
    return running;
  };
  return { written: () => written, more, stop };
}

test(
  'clients of a PgBouncer are moved without an error, after a first try that its deadline ended while no worker lived',
  { timeout: 180_000 },
  async () => {
    await source.psql('postgres', `CREATE DATABASE ${DATABASE}`);
    await source.psql(
      DATABASE,
      'CREATE TABLE entry (id bigserial PRIMARY KEY, n int NOT NULL); CREATE TABLE other (id int PRIMARY KEY)',
    );
    await bouncer.configure({ shop: at(source) });
    const client = await startClient(bouncer.uri('shop'));
    const migration = await startMigration({
      ...{ source, target, databases: [DATABASE] },
      plan: { stop: { fence: 'pgbouncer', pgbouncer: 'env:PGBOUNCER_URI', maxLagBytes: 1e12 } },
      env: { PGBOUNCER_URI: bouncer.uri('pgbouncer') },
    });
    try {
      await migration.phase('streaming');
      await client.more(100);
      const lock = await lockTable(target, DATABASE, 'entry');
      await lock.reached(); // by the apply worker
      await migration.handle.signal('stopReplication', { deadlineSeconds: 10 });
      await migration.pending(DATABASE, 'waitForDrain');
      const held = client.written();
      await migration.killWorker();
      const parked = await eventually(
        () => migration.progress(),
        ({ phase, attention }) => phase === 'streaming' && attention !== null,
        90_000,
      );
      expect(parked.attention).toMatch(
        /not done 10 s after the fence began to go up\. It had come to the step "pooled: wait until the target has confirmed [^"]*".*goes on/,
      );
      expect(held).toBeLessThan(client.written());
      await client.more(100);
      await lock.release();
      await migration.handle.executeUpdate('resolve', { args: [{ action: 'retry' }] });
      await migration.phase('streaming');

      await migration.handle.signal('stopReplication', { deadlineSeconds: 120 });
      await eventually(
        () => migration.progress(),
        ({ databases: [database] }) => database?.waitsFor === 'switched',
        60_000,
      );
      const moved = client.written();
      // Who has not led PgBouncer elsewhere is not believed.
      await migration.handle.executeUpdate('switched', { args: [{ by: 'nobody' }] });
      const notSwitched = await eventually(
        () => migration.progress(),
        ({ databases: [database] }) => (database?.answers.length ?? 0) > 0,
        60_000,
      );
      expect(notSwitched.attention).toMatch(/PgBouncer still leads to the source: shop → /);
      expect(client.written()).toBe(moved);
      await bouncer.configure({ shop: at(target) });
      await migration.handle.executeUpdate('resolve', { args: [{ action: 'retry' }] });
      const { databases } = await migration.report();
      expect(databases[0]).toMatchObject({
        ...{ status: 'done', walAfterMarkBytes: 0 },
        cutover: { fence: 'pgbouncer', switchedBy: 'nobody' },
      });
      await client.more(100);
      await client.stop();
      const rows = (server: PostgresServer) => server.psql(DATABASE, 'SELECT count(*), count(DISTINCT n) FROM entry');
      expect(await rows(target)).toBe(`${client.written()}|${client.written()}`);
      expect(await rows(source)).toBe(`${moved}|${moved}`);
      expect(await leftovers(source, target, [DATABASE])).toEqual([]);
    } finally {
      await client.stop().catch(() => undefined);
      await migration.close();
    }
  },
);
