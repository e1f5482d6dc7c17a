import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startPostgres, type PostgresServer } from '../../lab/postgres-server.ts';
import { lockTable } from '../support/hold.ts';
import { expectEqual, leftovers, startMigration } from '../support/live-migration.ts';
import { startTraffic, TRAFFIC_SCHEMA } from '../support/traffic.ts';
import { eventually } from '../support/workflow-harness.ts';

const PATIENCE_MS = 300_000;
const DATABASE = 'obstacles';

let source: PostgresServer;
let target: PostgresServer;

beforeAll(async () => {
  [source, target] = await Promise.all([
    startPostgres({ major: 17, settings: { max_prepared_transactions: '5' } }),
    startPostgres({ major: 18 }),
  ]);
});

afterAll(() => Promise.all([source.remove(), target.remove()]));

const SCHEMA = `${TRAFFIC_SCHEMA}
CREATE TABLE big (id int PRIMARY KEY, note text);
INSERT INTO big SELECT g, md5(g::text) FROM generate_series(1, 200000) g;`;

interface Obstacle {
  called: string;
  /** Of the stop that meets it. */
  request: { fence?: string; deadlineSeconds?: number };
  /** Puts it in the way, and answers what takes it out again. */
  put(): Promise<() => Promise<unknown>>;
  /** That the operator reads. */
  sentence: RegExp;
}

const onSource = (sql: string) => source.psql(DATABASE, sql);
const onTarget = (sql: string) => target.psql(DATABASE, sql);

async function connectAsApp(): Promise<pg.Client> {
  const client = new pg.Client({
    connectionString: source.uri(DATABASE, { user: 'app' }),
    application_name: 'endless',
  });
  client.on('error', () => undefined);
  await client.connect();
  return client;
}

const OBSTACLES: Obstacle[] = [
  {
    called: 'a prepared transaction',
    request: { deadlineSeconds: 3 },
    put: async () => {
      await onSource(`BEGIN; UPDATE account SET balance = 1 WHERE id = 1; PREPARE TRANSACTION 'left over'`);
      return () => onSource(`ROLLBACK PREPARED 'left over'`);
    },
    sentence: /did not begin within 3 s: it waited for the end of the prepared transaction 'left over'\..*goes on/,
  },
  {
    called: 'a lag that never falls',
    request: { deadlineSeconds: 3 },
    put: async () => {
      const lock = await lockTable(target, DATABASE, 'big');
      await onSource('UPDATE big SET note = note WHERE id = 1');
      await lock.reached();
      return () => lock.release();
    },
    sentence: /did not begin within 3 s: it waited for the target to confirm what was written a second ago.*goes on/,
  },
  {
    called: 'a sequence that was moved behind',
    request: {},
    put: async () => {
      await onSource('INSERT INTO log (what) SELECT g FROM generate_series(1, 5) g');
      const ahead = await onSource(`SELECT last_value FROM log_id_seq`);
      await onSource(`SELECT setval('log_id_seq', 2)`);
      return () => onSource(`SELECT setval('log_id_seq', ${ahead})`);
    },
    sentence:
      /Sequence public\.log_id_seq was moved behind its rows on the source: it is at 2, and public\.log\.id has \d+\./,
  },
  {
    called: 'a trigger that is missing on the target',
    request: {},
    put: async () => {
      const trigger = await onTarget(`SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = 'changed'`);
      await onTarget('DROP TRIGGER changed ON account');
      return () => onTarget(trigger);
    },
    sentence:
      /The target lacks what was restored there, and the source still has: TRIGGER public\.account changed\..*goes on/,
  },
  {
    called: 'a row of a large table that differs on the target',
    request: { deadlineSeconds: 60 },
    put: async () => {
      await onTarget(`UPDATE big SET note = 'planted' WHERE id = 77777`);
      return () => onTarget(`UPDATE big SET note = md5('77777') WHERE id = 77777`);
    },
    sentence: /These tables differ behind the fence: public\.big \(.*\), with the keys \(77777\)\..*goes on/,
  },
  {
    called: 'a transaction that never ends',
    request: { fence: 'external', deadlineSeconds: 5 },
    put: async () => {
      const client = await connectAsApp();
      await client.query('BEGIN; UPDATE account SET balance = balance WHERE id = 2');
      return () => client.end();
    },
    sentence:
      /not done 5 s after .*"obstacles: mark the end in the source's WAL", and waited for the end of the transaction of pid \d+ \(app\)\..*goes on/,
  },
  {
    called: 'writers that ignore the fence',
    request: { fence: 'external', deadlineSeconds: 60 },
    put: () => {
      const writer = startTraffic(source.uri(DATABASE, { user: 'app' }), 100);
      return Promise.resolve(() => writer.stop());
    },
    sentence: /Somebody wrote \d+ bytes to database "obstacles" on the source behind the fence, to public\..*goes on/,
  },
];

test(
  'whatever is in the way of a cutover stops it with its own sentence, and the source is written to as before',
  { timeout: PATIENCE_MS },
  async () => {
    await source.psql('postgres', 'CREATE ROLE app LOGIN; GRANT pg_write_all_data, pg_read_all_data TO app');
    await source.psql('postgres', `CREATE DATABASE ${DATABASE}`);
    await onSource(SCHEMA);
    const migration = await startMigration({
      ...{ source, target, databases: [DATABASE] },
      plan: { stop: { fence: 'read-only' }, verify: 'full' },
    });
    try {
      for (const { called, request, put, sentence } of OBSTACLES) {
        await migration.phase('streaming');
        const takeAway = await put();
        try {
          await migration.handle.signal('stopReplication', { reason: called, ...request });
          if (request.fence === 'external') {
            await eventually(
              () => migration.progress(),
              ({ databases: [database] }) => database?.waitsFor === 'fenced',
              60_000,
            );
            await migration.handle.executeUpdate('fenced', { args: [{ by: 'the test' }] });
          }
          const { attention } = await eventually(
            () => migration.progress(),
            ({ phase, attention }) => phase === 'streaming' && attention !== null,
            60_000,
          );
          expect(attention, called).toMatch(sentence);
          const client = await connectAsApp();
          await client.query('INSERT INTO keyless VALUES (1, $1)', [called]);
          await client.end();
        } finally {
          await takeAway();
        }
        await eventually(
          () => onTarget(`SELECT count(*) FROM keyless WHERE b = '${called}'`),
          (count) => count === '1',
          60_000,
        );
        await migration.handle.executeUpdate('resolve', { args: [{ action: 'retry' }] });
      }
      await migration.phase('streaming');
      await migration.handle.signal('stopReplication', { deadlineSeconds: 600 });
      const { attention } = await eventually(
        () => migration.progress(),
        (progress) => progress.phase === 'done' || progress.attention !== null,
        60_000,
      );
      expect(attention).toBe(null);
      const report = await migration.report();
      expect(report.databases[0]).toMatchObject({ status: 'done', walAfterMarkBytes: 0 });
      await expectEqual(source, target, [DATABASE]);
      expect(await leftovers(source, target, [DATABASE])).toEqual([]);
    } finally {
      await migration.close();
    }
  },
);
