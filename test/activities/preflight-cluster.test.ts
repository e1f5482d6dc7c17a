import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { PlanInput } from './preflight-support.ts';
import { errorsOf, inspectCluster, inspectDatabase, migrationOf, recheck, withCode } from './preflight-support.ts';
import type { PostgresServer } from '../../lab/postgres-server.ts';
import { startPostgres } from '../../lab/postgres-server.ts';
import { makeServerDir } from '../../lab/postgres-template.ts';
import { own } from '../../lab/processes.ts';
import { runProgram } from '../../lab/run-program.ts';
import { workDir } from '../../lab/tools.ts';

let source: PostgresServer;
let target: PostgresServer;
/** Can do nothing for replication. */
let plain: PostgresServer;
let narrow: PostgresServer;

beforeAll(async () => {
  [source, target, plain, narrow] = await Promise.all([
    startPostgres({ major: 17 }),
    startPostgres({ major: 18 }),
    startPostgres({ major: 17, settings: { wal_level: 'replica', max_replication_slots: '0', max_wal_senders: '0' } }),
    startPostgres({
      major: 18,
      settings: { max_logical_replication_workers: '0', max_active_replication_origins: '0' },
    }),
  ]);
  for (const server of [source, plain]) await server.psql('postgres', 'CREATE DATABASE shop; CREATE DATABASE crm');
  for (const server of [source, plain]) await server.psql('shop', 'CREATE TABLE t (id int PRIMARY KEY)');
});

afterAll(() => Promise.all([source, target, plain, narrow].map((server) => server.remove())));

const REPLICATION = { method: 'replication' };
const inspect = (plan: PlanInput = {}, from = source, to = target) =>
  inspectCluster({ source: from.uri(), target: to.uri() }, plan);
const codes = async (inspecting: ReturnType<typeof inspect>): Promise<string[]> =>
  errorsOf((await inspecting).findings).map(({ code }) => code);

describe('inspectCluster', () => {
  it('pins both servers, and lists the databases with their sizes and nothing to complain of', async () => {
    const { servers, databases, findings, searchAttributes } = await inspect();
    expect(findings).toEqual([]);
    expect(servers.source.version).toBeGreaterThanOrEqual(170000);
    expect(servers.target.version).toBeGreaterThanOrEqual(180000);
    expect(servers.source.systemIdentifier).not.toBe(servers.target.systemIdentifier);
    expect(databases.map(({ database }) => database)).toEqual(['crm', 'shop']);
    for (const { bytes, sourceOid } of databases) expect(Math.min(bytes, sourceOid)).toBeGreaterThan(0);
    expect(searchAttributes).toBe(true);
  });

  it('means "postgres" only when somebody uses it', async () => {
    await source.psql('postgres', 'CREATE TABLE used (a int)');
    expect((await inspect()).databases.map(({ database }) => database)).toEqual(['crm', 'postgres', 'shop']);
    expect((await inspect({ databases: { exclude: ['postgres'] } })).databases).toHaveLength(2);
    await source.psql('postgres', 'DROP TABLE used');
  });

  it('refuses a name that the source does not have, and warns of one that is excluded in vain', async () => {
    const { databases, findings } = await inspect({
      databases: { include: ['shop', 'Crm', 'template1'], exclude: ['nope', `'); DROP DATABASE crm; --`] },
    });
    expect(databases.map(({ database }) => database)).toEqual(['shop']);
    expect(withCode(findings, 'filter-matches-nothing')).toMatchObject([
      { severity: 'error', object: '"Crm"', remedy: 'Names are exact: write "crm".' },
      { severity: 'warning', object: '"nope"' },
      { severity: 'warning', object: `"'); DROP DATABASE crm; --"` },
      { severity: 'error', object: '"template1"' },
    ]);
    expect(await codes(inspect({ databases: { exclude: ['shop', 'crm'] } }))).toEqual(['nothing-to-migrate']);
  });

  it('refuses a database that takes no connections, and that one only', async () => {
    await source.psql('postgres', 'CREATE DATABASE closed ALLOW_CONNECTIONS false');
    const { databases, findings } = await inspect();
    expect(databases).toHaveLength(2);
    expect(findings).toMatchObject([{ code: 'database-refuses-connections', severity: 'error', database: 'closed' }]);
    expect((await inspect({ databases: { exclude: ['closed'] } })).findings).toEqual([]);
    await source.psql('postgres', 'DROP DATABASE closed');
  });

  it('knows that source and target are one server, whatever they are called', async () => {
    const local = source.uri().replace('127.0.0.1', 'localhost');
    const { findings } = await inspectCluster({ source: source.uri(), target: local });
    expect(errorsOf(findings).map(({ code }) => code)).toContain('same-server');
  });

  it('refuses an older target, unless the plan allows it', async () => {
    expect(await codes(inspect(REPLICATION, target, plain))).toContain('target-older');
    const { findings } = await inspect({ allowOlderTarget: true }, target, plain);
    expect(withCode(findings, 'target-older')).toMatchObject([{ severity: 'warning' }]);
  });

  it('names what a source for replication lacks, and leaves it to each database where the plan says auto', async () => {
    const { findings } = await inspect(REPLICATION, plain);
    expect(errorsOf(findings).map(({ code }) => code)).toEqual(['wal-level', 'replication-slots', 'wal-senders']);
    expect(findings[0]?.remedy).toBe(`ALTER SYSTEM SET wal_level = 'logical'; -- then restart the source.`);
    expect(findings[1]?.message).toBe('0 of 0 replication slots are free, but 2 are needed, one for each database.');
    expect((await inspect({}, plain)).findings).toEqual([]);
    const database = await inspectDatabase({ source: plain.uri(), target: target.uri() }, 'shop');
    expect(database).toMatchObject({ method: 'dump' });
    expect(database.reason).toMatch(/"wal_level" is replica/);
    expect(errorsOf(database.findings)).toEqual([]);
    expect(withCode(database.findings, 'dump-only')[0]?.message).toMatch(/is lost: public\.t/);
  });

  it('names what a target for replication lacks', async () => {
    const { findings } = await inspect(REPLICATION, source, narrow);
    const messages = withCode(findings, 'apply-workers').map(({ message }) => message);
    expect(messages).toEqual([
      expect.stringMatching(/logical replication workers/),
      expect.stringMatching(/replication origins/),
    ]);
    expect(await codes(inspect({ method: 'dump' }, source, narrow))).toEqual([]);
  });

  it('counts the slots and workers that others use', async () => {
    for (let i = 0; i < 19; i++) await source.psql('postgres', `SELECT pg_create_physical_replication_slot('s${i}')`);
    const { findings } = await inspect();
    expect(withCode(findings, 'replication-slots')[0]?.message).toMatch(/^1 of 20 .* but 2 are needed/);
    const m = await migrationOf({ source: source.uri(), target: target.uri() }, 'shop');
    await recheck({ source: source.uri(), target: target.uri() }, m);
    await source.psql('postgres', `SELECT pg_create_physical_replication_slot('last')`);
    await expect(recheck({ source: source.uri(), target: target.uri() }, m)).rejects.toThrow(/replication-slots/);
    await source.psql('postgres', 'SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots');
  });

  it('names a prepared transaction: no slot could be made before it ends, and a dump lacks its rows', async () => {
    await source.psql('crm', `BEGIN; CREATE TABLE p (a int); PREPARE TRANSACTION 'it''s mine'`);
    const found = withCode((await inspect()).findings, 'prepared-transaction');
    expect(found).toMatchObject([{ severity: 'error', object: `'it''s mine'` }]);
    expect(found[0]?.remedy).toContain(`COMMIT PREPARED 'it''s mine';`);
    expect(withCode((await inspect({ method: 'dump' })).findings, 'prepared-transaction')).toMatchObject([
      { severity: 'warning' },
    ]);
    await source.psql('crm', `ROLLBACK PREPARED 'it''s mine'`);
  });

  it('warns of limits that could end the slot during the copy', async () => {
    await source.psql('postgres', `ALTER SYSTEM SET max_slot_wal_keep_size = '1GB'`);
    await source.psql('postgres', 'SELECT pg_reload_conf()');
    await expect
      .poll(async () => withCode((await inspect()).findings, 'slot-limit'))
      .toMatchObject([{ severity: 'warning', object: 'max_slot_wal_keep_size' }]);
    await source.psql('postgres', 'ALTER SYSTEM RESET ALL');
    await source.psql('postgres', 'SELECT pg_reload_conf()');
  });

  it('names the settings of all roles, and labels of roles, that are not carried over', async () => {
    await source.psql('postgres', `ALTER ROLE ALL SET search_path = public, "My Schema"; CREATE ROLE labelled`);
    await source.psql(
      'postgres',
      `INSERT INTO pg_shseclabel SELECT oid, 'pg_authid'::regclass, 'it''s', 'top secret' FROM pg_roles WHERE rolname = 'labelled'`,
    );
    expect(withCode((await inspect()).findings, 'all-roles-setting')).toEqual([]);
    await target.psql('postgres', 'CREATE DATABASE theirs');
    const { findings } = await inspect();
    await target.psql('postgres', 'DROP DATABASE theirs');
    expect(withCode(findings, 'all-roles-setting')).toMatchObject([
      {
        severity: 'warning',
        object: '"search_path"',
        message: expect.stringContaining('it would hold for database "theirs"') as string,
        remedy: expect.stringContaining(`ALTER ROLE ALL SET "search_path" TO 'public', 'My Schema';`) as string,
      },
    ]);
    expect(withCode(findings, 'role-label')).toMatchObject([{ severity: 'warning', object: '"labelled"' }]);
    await source.psql('postgres', `ALTER ROLE ALL RESET ALL; DELETE FROM pg_shseclabel; DROP ROLE labelled`);
    const again = await inspect();
    expect([...withCode(again.findings, 'all-roles-setting'), ...withCode(again.findings, 'role-label')]).toEqual([]);
  });

  it('refuses more than "maxTotalBytes", with the sizes', async () => {
    const { findings } = await inspect({ maxTotalBytes: 1_000_000 });
    expect(withCode(findings, 'size-limit')[0]?.message).toMatch(/976\.6 kB.*"shop" \d+\.\d MB/);
    expect(await codes(inspect({ maxTotalBytes: 1_000_000_000 }))).toEqual([]);
  });

  it('warns of a target whose provider has made it read-only', async () => {
    await target.psql('postgres', 'ALTER ROLE ALL SET default_transaction_read_only = on');
    expect(withCode((await inspect()).findings, 'target-read-only')).toMatchObject([{ severity: 'warning' }]);
    await target.psql('postgres', 'SET default_transaction_read_only = off; ALTER ROLE ALL RESET ALL');
  });
});

describe('a role that is no superuser', () => {
  const as = (server: PostgresServer, user: string) => server.uri(undefined, { user, password: 'x-secret' });

  it('is told what it may not do, with the SQL that lets it', async () => {
    for (const server of [source, target]) await server.psql('postgres', 'CREATE ROLE plain LOGIN');
    const servers = { source: as(source, 'plain'), target: as(target, 'plain') };
    const { findings } = await inspectCluster(servers, REPLICATION);
    expect(errorsOf(findings).map(({ code, object }) => `${code} ${object}`)).toEqual([
      'create-database "crm"',
      'create-database "shop"',
      'replication-attribute "plain"',
      'create-subscription "plain"',
    ]);
    expect(withCode(findings, 'create-role')).toMatchObject([{ severity: 'warning' }]);
    // Of other roles' sessions it sees nothing, and says so.
    expect(withCode(findings, 'long-transaction')).toMatchObject([{ severity: 'warning', unknown: true }]);
    for (const { server, remedy } of errorsOf(findings))
      await (server === 'source' ? source : target).psql('postgres', remedy ?? '');
    expect(errorsOf((await inspectCluster(servers, REPLICATION)).findings)).toEqual([]);
  });

  it('needs a password for its subscription', async () => {
    await target.psql('postgres', 'CREATE ROLE subscriber LOGIN CREATEDB CREATEROLE IN ROLE pg_create_subscription');
    const servers = { source: source.uri(), target: as(target, 'subscriber') };
    expect(errorsOf((await inspectCluster(servers, REPLICATION)).findings)).toMatchObject([
      { code: 'subscription-password' },
    ]);
    const given = { ...servers, source: source.uri().replace('postgres@', 'postgres:any-secret@') };
    expect(errorsOf((await inspectCluster(given, REPLICATION)).findings)).toEqual([]);
  });

  it('gets "unknown", which blocks, where a catalog is closed to it', async () => {
    await source.psql(
      'postgres',
      'CREATE ROLE blind LOGIN REPLICATION; REVOKE SELECT ON pg_prepared_xacts FROM PUBLIC',
    );
    const { findings } = await inspectCluster({ source: as(source, 'blind'), target: target.uri() });
    expect(errorsOf(findings)).toMatchObject([{ code: 'prepared-transaction', severity: 'error', unknown: true }]);
    expect(findings[0]?.message).toMatch(
      /^This could not be checked\. While looking for prepared transactions on the source: permission denied/,
    );
    await source.psql('postgres', 'GRANT SELECT ON pg_prepared_xacts TO PUBLIC');
  });
});

describe('a server that cannot be reached', () => {
  it('fails at once, with one sentence for each side and no password', async () => {
    const secured = await startPostgres({ major: 17, auth: 'scram-sha-256', password: 'right-secret' });
    const servers = {
      source: secured.uri().replace('right-secret', 'wrong-secret'),
      target: 'postgresql://postgres:other-secret@nowhere.invalid:5432/postgres',
    };
    const failure = await inspectCluster(servers).catch((error: unknown) => error as Error & { type: string });
    expect(failure).toMatchObject({ type: 'ValidationFailed', retryable: false });
    const { message } = failure as Error;
    expect(message).toMatch(
      /on the source: password authentication failed for user "postgres"\..*on the target: .*nowhere\.invalid/,
    );
    expect(JSON.stringify(failure) + message).not.toMatch(/secret/);
    await secured.remove();
  });

  it('is named with the database that it does not have', async () => {
    const failure = inspectCluster({ source: source.uri('nonesuch'), target: target.uri('nowhere') });
    await expect(failure).rejects.toMatchObject({
      type: 'ValidationFailed',
      message: expect.stringMatching(
        /on the source: database "nonesuch" does not exist\..*on the target: database "nowhere" does not exist\./,
      ) as string,
    });
  });

  it('for want of the database that the connection string names says what that name is for', async () => {
    const servers = { source: source.uri(), target: target.uri('new_shop') };
    await expect(inspectCluster(servers)).rejects.toMatchObject({
      message: expect.stringContaining('database "new_shop" does not exist.') as string,
      details: { next: expect.stringMatching(/^Name a database that is there .* it is only for connecting/) as string },
    });
  });

  it('is waited for while it is starting', async () => {
    await narrow.stop();
    const inspecting = inspect({ method: 'dump' }, source, narrow);
    await narrow.start();
    expect((await inspecting).findings).toEqual([]);
  });
});

describe('a standby', () => {
  it('is no target, and no source for replication; promoted, it is a copy that is told from its primary', async () => {
    const home = makeServerDir(path.join(workDir(), 'standby-'));
    const dataDir = path.join(home, 'data');
    const disown = own({ dataDir, remove: [home] });
    await runProgram(
      path.join(target.binDir, 'pg_basebackup'),
      ['-D', dataDir, '-d', target.uri(), '-R', '-c', 'fast', '--no-sync'],
      {
        env: { ...process.env, ...target.env },
      },
    );
    const standby = await startPostgres({ major: 18, dataDir });
    await target.psql('postgres', 'CREATE DATABASE shop');
    const asTarget = await inspect({}, source, standby);
    expect(errorsOf(asTarget.findings).map(({ code }) => code)).toEqual(['target-in-recovery']);
    await expect
      .poll(() => standby.psql('postgres', `SELECT count(*) FROM pg_database WHERE datname = 'shop'`))
      .toBe('1');
    const asSource = await inspect({ method: 'replication' }, standby, narrow);
    expect(errorsOf(asSource.findings).map(({ code }) => code)).toContain('source-in-recovery');
    // Rows can be read from it, as long as it lets a query live; those of unlogged tables are not there.
    const asDump = await inspect({ method: 'dump', allowOlderTarget: true }, standby, source);
    expect(withCode(asDump.findings, 'standby-conflict')).toMatchObject([{ severity: 'warning', server: 'source' }]);
    expect(errorsOf(asDump.findings)).toEqual([]);
    await target.psql('shop', 'CREATE UNLOGGED TABLE fast (a int)');
    await expect.poll(() => standby.psql('shop', `SELECT count(*) FROM pg_class WHERE relname = 'fast'`)).toBe('1');
    const { findings } = await inspectDatabase({ source: standby.uri(), target: narrow.uri() }, 'shop', {
      method: 'dump',
    });
    expect(withCode(findings, 'unlogged-table')).toMatchObject([{ severity: 'error', object: 'public.fast' }]);
    await standby.psql('postgres', `ALTER SYSTEM SET max_standby_streaming_delay = '-1'`);
    await standby.psql('postgres', 'SELECT pg_reload_conf()');
    await expect
      .poll(async () => withCode((await inspect({ method: 'dump' }, standby, narrow)).findings, 'standby-conflict'))
      .toEqual([]);
    await standby.psql('postgres', 'SELECT pg_promote()');
    const promoted = await inspect({}, target, standby);
    expect(withCode(promoted.findings, 'same-system-identifier')).toMatchObject([{ severity: 'warning' }]);
    expect(withCode(promoted.findings, 'same-server')).toEqual([]);
    await standby.stop('immediate');
    disown();
    await target.psql('postgres', 'DROP DATABASE shop');
  });
});
