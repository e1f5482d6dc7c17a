import { chmodSync, copyFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { PostgresServer } from '../../lab/postgres-server.ts';
import { startPostgres } from '../../lab/postgres-server.ts';
import { makeServerDir } from '../../lab/postgres-template.ts';
import { own } from '../../lab/processes.ts';
import { pgBin, workDir } from '../../lab/tools.ts';
import type { PlanInput } from './preflight-support.ts';
import { inspectCluster, inspectDatabase, withCode } from './preflight-support.ts';

let source: PostgresServer;
let target: PostgresServer;
/** Has no apply workers, and room for few locks and slots. */
let narrow: PostgresServer;
let libraries: string;
let disown: () => void;

const GB = 1024 ** 3;

beforeAll(async () => {
  libraries = makeServerDir(path.join(workDir(), 'libraries-'));
  disown = own({ remove: [libraries] });
  // Any library will do: what counts is what it is called.
  const library = path.join(libraries, 'aiven_gatekeeper.so');
  copyFileSync(path.join(pgBin(18), '..', 'lib', 'auth_delay.so'), library);
  chmodSync(library, 0o755);
  [source, target, narrow] = await Promise.all([
    startPostgres({ major: 17 }),
    startPostgres({
      major: 18,
      settings: {
        dynamic_library_path: `${libraries}:$libdir`,
        shared_preload_libraries: 'aiven_gatekeeper',
        'aiven.pg_security_agent_reserved_roles': 'postgres,avnadmin',
      },
    }),
    startPostgres({
      major: 17,
      settings: {
        ...{ max_connections: '10', max_locks_per_transaction: '10', max_prepared_transactions: '0' },
        ...{ max_wal_senders: '1', max_logical_replication_workers: '0', wal_sender_timeout: '2s' },
        ...{ wal_level: 'replica', max_slot_wal_keep_size: '64MB' },
      },
    }),
  ]);
  for (const server of [source, narrow]) {
    await server.psql('postgres', 'CREATE DATABASE shop');
    await server.psql('shop', 'CREATE TABLE t (id int PRIMARY KEY)');
  }
});

afterAll(async () => {
  await Promise.all([source, target, narrow].map((server) => server.remove()));
  rmSync(libraries, { recursive: true });
  disown();
});

const REPLICATION = { method: 'replication' };
const cluster = async (code: string, plan: PlanInput = REPLICATION, from = source, to = target) =>
  withCode((await inspectCluster({ source: from.uri(), target: to.uri() }, plan)).findings, code);
const database = async (code: string, plan: PlanInput = REPLICATION, from = source, to = target) =>
  withCode((await inspectDatabase({ source: from.uri(), target: to.uri() }, 'shop', plan)).findings, code);
const session = async (server: PostgresServer, sql: string): Promise<pg.Client> => {
  const client = new pg.Client({ connectionString: server.uri('shop') });
  await client.connect();
  await client.query(sql);
  return client;
};

/** As if the database had so many bytes: its size is that of the files in its directory. */
async function inflate(server: PostgresServer, bytes: number): Promise<void> {
  const oid = await server.psql('postgres', `SELECT oid FROM pg_database WHERE datname = 'shop'`);
  // Several, because a file system has a limit for each.
  for (const name of ['99996', '99997', '99998', '99999']) {
    const file = path.join(server.dataDir, 'base', oid, name);
    writeFileSync(file, '', { mode: 0o644 });
    truncateSync(file, bytes / 4);
  }
}

/** A stand-in for the extension that knows disks, with `/` and, when it is given, the disk of the data. */
async function installSystemStats(server: PostgresServer, free: number): Promise<void> {
  await server.psql(
    'postgres',
    `CREATE SCHEMA stats; CREATE EXTENSION hstore SCHEMA stats; UPDATE pg_extension SET extname = 'system_stats' WHERE extname = 'hstore';
     CREATE FUNCTION stats.pg_sys_disk_info(OUT mount_point text, OUT free_space int8) RETURNS SETOF record LANGUAGE sql
       AS $$ VALUES ('/', 1::int8), ('/elsewhere', 2), (regexp_replace(current_setting('data_directory'), '/data$', ''), ${free}) $$`,
  );
}

describe('the source', () => {
  it('is said how to set wal_level in the words of its provider', async () => {
    const remedy = async () => (await cluster('wal-level', REPLICATION, narrow))[0]?.remedy;
    expect(await remedy()).toMatch(/^ALTER SYSTEM SET wal_level = 'logical';/);
    for (const [name, words] of [
      ['rds.logical_replication', /parameter group/],
      ['cloudsql.logical_decoding', /flag "cloudsql\.logical_decoding"/],
      ['alloydb.logical_decoding', /flag "alloydb\.logical_decoding"/],
      ['azure.extensions', /server parameter "wal_level" to LOGICAL/],
    ] as const) {
      await narrow.psql('postgres', `ALTER ROLE ALL SET "${name}" = ''`);
      expect(await remedy()).toMatch(words);
      await narrow.psql('postgres', 'ALTER ROLE ALL RESET ALL');
    }
  });

  it('is warned when the copy would take more connections than are free, and so is the target', async () => {
    expect(await cluster('free-connections')).toEqual([]);
    // 10 connections, 3 of them for superusers; one database takes 3 and its lanes.
    const found = await cluster('free-connections', REPLICATION, narrow, narrow);
    expect(found.map(({ server, severity }) => [server, severity])).toEqual([
      ['source', 'warning'],
      ['target', 'warning'],
    ]);
    expect(found[0]?.message).toMatch(/^\d of 7 connections are free, and the copy uses up to 7;/);
    const slow = { ...REPLICATION, parallelism: { copy: 1, index: 1 } };
    // The server's own workers come and go.
    await expect.poll(() => cluster('free-connections', slow, narrow, narrow)).toEqual([]);
  });

  it('is warned of a sender timeout that a big transaction would hit', async () => {
    expect(await cluster('sender-timeout')).toEqual([]);
    expect(await cluster('sender-timeout', REPLICATION, narrow)).toMatchObject([
      { severity: 'warning', message: expect.stringMatching(/is 2000 ms/) as string },
    ]);
  });

  it('is warned of a transaction that is open for long, with who and what', async () => {
    expect(await cluster('long-transaction')).toEqual([]);
    const client = await session(source, 'BEGIN');
    try {
      await client.query(`INSERT INTO t VALUES (1) /* password='hidden' */`);
      await expect
        .poll(() => cluster('long-transaction'), { timeout: 30_000, interval: 1_000 })
        .toMatchObject([
          {
            severity: 'warning',
            message: expect.stringMatching(
              /"postgres" in database "shop" .* open for 1\d s; .* INSERT INTO t/,
            ) as string,
          },
        ]);
      expect(JSON.stringify(await cluster('long-transaction'))).not.toContain('hidden');
    } finally {
      await client.end();
    }
  });

  it('is warned of transaction ids that run out, and refused when they have', async () => {
    const age = async (xids: number) => {
      await source.psql(
        'postgres',
        `UPDATE pg_database SET datfrozenxid = ((pg_current_xact_id()::text::int8 - ${xids} + 4294967296) % 4294967296)::text::xid WHERE datname = 'shop'`,
      );
      return database('wraparound');
    };
    const before = await source.psql('postgres', `SELECT datfrozenxid FROM pg_database WHERE datname = 'shop'`);
    expect(await database('wraparound')).toEqual([]);
    expect(await age(1_600_000_000)).toMatchObject([{ severity: 'warning' }]);
    expect(await age(2_050_000_000)).toMatchObject([{ severity: 'error' }]);
    await source.psql('postgres', `UPDATE pg_database SET datfrozenxid = '${before}' WHERE datname = 'shop'`);
  });

  it('is warned when reading the schema would take more locks than there are', async () => {
    expect(await database('lock-table', { method: 'dump' }, narrow)).toEqual([]);
    await narrow.psql('shop', `SELECT format('CREATE TABLE t%s (id int)', i) FROM generate_series(1, 90) AS i \\gexec`);
    expect(await database('lock-table', { method: 'dump' }, narrow)).toMatchObject([{ severity: 'warning' }]);
  });

  it('is refused when its slot would be lost before the copy is done, and warned when it might', async () => {
    expect(await cluster('slot-limit', REPLICATION, narrow)).toMatchObject([{ severity: 'warning' }]);
    // At what initdb and a few tables wrote a minute, 20 TB at 20 MB/s see more than 64 MB.
    await inflate(narrow, 20_000 * GB);
    const [found] = await cluster('slot-limit', REPLICATION, narrow);
    expect(found).toMatchObject({ severity: 'error', object: 'max_slot_wal_keep_size' });
    expect(found?.message).toMatch(/in the \d+ h that the copy may take, the source writes about [\d.]+ [MGT]B/);
    await inflate(narrow, 0);
  });

  it('is refused for transaction_timeout, which ends the sender of a big transaction again and again', async () => {
    const newer = await startPostgres({ major: 18 });
    try {
      await newer.psql('postgres', 'CREATE DATABASE shop');
      expect(await database('timeout-setting')).toEqual([]);
      await source.psql('postgres', `ALTER DATABASE shop SET transaction_timeout = '1min'`);
      const found = await database('timeout-setting', REPLICATION, source, newer);
      expect(found).toMatchObject([
        { severity: 'error', server: 'source', object: 'transaction_timeout' },
        { severity: 'info', object: null },
      ]);
      expect(await database('timeout-setting', { method: 'dump' }, source, newer)).toMatchObject([
        { severity: 'info' },
      ]);
      await source.psql('shop', found[0]?.remedy ?? '');
      await newer.psql(
        'postgres',
        `ALTER ROLE postgres SET lock_timeout = '5s'; ALTER ROLE postgres SET transaction_timeout = '5s'`,
      );
      expect(
        (await database('timeout-setting', REPLICATION, source, newer)).map(({ severity, object }) => [
          severity,
          object,
        ]),
      ).toEqual([
        ['warning', 'lock_timeout'],
        ['error', 'transaction_timeout'],
        ['info', null],
      ]);
      await source.psql('postgres', 'ALTER DATABASE shop RESET ALL; ALTER ROLE postgres IN DATABASE shop RESET ALL');
    } finally {
      await newer.remove();
    }
  });
});

describe('disks', () => {
  it('are only mentioned for what is big, with the room that is needed', async () => {
    expect([...(await cluster('target-disk')), ...(await cluster('source-disk'))]).toEqual([]);
    await inflate(source, 100 * GB);
    expect(await cluster('target-disk')).toMatchObject([
      {
        severity: 'info',
        unknown: true,
        message: expect.stringMatching(/^The target needs about 130\.0 GB/) as string,
      },
    ]);
    await inflate(source, 20_000 * GB);
    // Its rate counts from its statistics' beginning, which may be old.
    await source.psql('postgres', `SELECT pg_stat_reset_shared('wal')`);
    await source.psql('postgres', `SELECT pg_logical_emit_message(false, 'test', repeat('x', 1000000))`);
    expect(await cluster('source-disk')).toMatchObject([
      { severity: 'info', unknown: true, message: expect.stringMatching(/the slots keep .*WAL/) as string },
    ]);
  });

  it('that are too small are a warning where an extension knows them, and no more than that where they are not', async () => {
    await inflate(source, 100 * GB);
    await installSystemStats(target, 50 * GB);
    expect(await cluster('target-disk')).toMatchObject([
      { severity: 'warning', message: expect.stringMatching(/but its disk has 50\.0 GB free/) as string },
    ]);
    await installFree(target, 200 * GB);
    expect(await cluster('target-disk')).toEqual([]);
    await installSystemStats(source, 1024);
    expect(await cluster('source-disk')).toMatchObject([
      { severity: 'warning', message: expect.stringMatching(/but its disk has 1\.0 kB free/) as string },
    ]);
  });

  it('and checkpoints: a target that is tuned low for the size is told so, with the values', async () => {
    const [found] = await cluster('target-tuning');
    expect(found).toMatchObject({ severity: 'info', server: 'target' });
    expect(found?.message).toMatch(
      /"max_wal_size" is 2\.0 GB, "checkpoint_timeout" 5 min, "maintenance_work_mem" 64MB/,
    );
    for (const statement of (found?.remedy ?? '').split(';').filter((part) => part.includes('ALTER')))
      await target.psql('postgres', statement);
    await target.psql('postgres', 'SELECT pg_reload_conf()');
    await expect.poll(() => cluster('target-tuning')).toEqual([]);
    await inflate(source, 0);
  });
});

const installFree = (server: PostgresServer, free: number): Promise<string> =>
  server.psql(
    'postgres',
    `CREATE OR REPLACE FUNCTION stats.pg_sys_disk_info(OUT mount_point text, OUT free_space int8) RETURNS SETOF record LANGUAGE sql
       AS $$ VALUES (current_setting('data_directory'), ${free}) $$`,
  );

describe('the target', () => {
  it('whose gatekeeper forbids superusers refuses those of the source, unless it knows or the plan leaves them', async () => {
    expect(await cluster('reserved-superuser')).toEqual([]);
    await source.psql('postgres', 'CREATE ROLE boss SUPERUSER; CREATE ROLE avnadmin SUPERUSER; CREATE ROLE clerk');
    expect(await cluster('reserved-superuser')).toMatchObject([{ severity: 'error', object: '"boss"' }]);
    expect(await cluster('reserved-superuser', { roles: { exclude: ['boss'] } })).toEqual([]);
    expect(await cluster('reserved-superuser', REPLICATION, source, narrow)).toEqual([]);
    await source.psql('postgres', 'DROP ROLE boss, avnadmin, clerk');
  });

  it('with a subscription that runs in the database is refused', async () => {
    await narrow.psql('postgres', 'CREATE DATABASE crm');
    await narrow.psql(
      'crm',
      `CREATE SUBSCRIPTION other CONNECTION 'host=127.0.0.1 port=1' PUBLICATION p WITH (connect = false); ALTER SUBSCRIPTION other ENABLE`,
    );
    await source.psql('postgres', 'CREATE DATABASE crm');
    const look = async (plan: PlanInput) =>
      withCode(
        (await inspectDatabase({ source: source.uri(), target: narrow.uri() }, 'crm', plan)).findings,
        'target-subscription',
      );
    expect(await look(REPLICATION)).toMatchObject([{ severity: 'error', object: '"other"' }]);
    expect(await look({ method: 'dump' })).toMatchObject([{ severity: 'warning' }]);
    await narrow.psql(
      'crm',
      'ALTER SUBSCRIPTION other DISABLE; ALTER SUBSCRIPTION other SET (slot_name = NONE); DROP SUBSCRIPTION other',
    );
  });

  it('knows what its provider lets an ordinary administrator install', async () => {
    await source.psql('shop', 'CREATE EXTENSION dblink');
    await target.psql('postgres', 'CREATE ROLE admin LOGIN CREATEDB CREATEROLE');
    const look = async () => {
      const servers = { source: source.uri(), target: target.uri(undefined, { user: 'admin' }) };
      return withCode((await inspectDatabase(servers, 'shop', { method: 'dump' })).findings, 'extension');
    };
    for (const list of ['extwlist.extensions', 'rds.extensions', 'azure.extensions']) {
      expect(await look()).toMatchObject([{ severity: 'error', object: '"dblink"' }]);
      await target.psql('postgres', `ALTER ROLE admin SET "${list}" = 'hstore, dblink'`);
      expect(await look()).toEqual([]);
      await target.psql('postgres', 'ALTER ROLE admin RESET ALL');
    }
    await source.psql('shop', 'DROP EXTENSION dblink');
  });
});
