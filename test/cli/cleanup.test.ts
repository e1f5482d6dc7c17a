import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, inject, test } from 'vitest';
import { own } from '../../lab/processes.ts';
import type { PostgresServer } from '../../lab/postgres-server.ts';
import { startPostgres } from '../../lab/postgres-server.ts';
import { freePort } from '../../src/temporal/free-port.ts';
import { holdAt, HOLD_SCHEMA, lockTable } from '../support/hold.ts';
import type { LiveMigration } from '../support/live-migration.ts';
import { expectEqual, leftovers, startMigration } from '../support/live-migration.ts';
import { eventually } from '../support/workflow-harness.ts';
import { pgtransit } from './command.ts';

const PATIENCE_MS = 240_000;

let source: PostgresServer;
let target: PostgresServer;
let home: string;

beforeAll(async () => {
  const password = 'hush-hush';
  [source, target] = await Promise.all([
    startPostgres({ major: 17, auth: 'scram-sha-256', password }),
    startPostgres({ major: 18, auth: 'scram-sha-256', password }),
  ]);
  home = mkdtempSync(join(tmpdir(), 'pgtransit-home-'));
  own({ remove: [home] });
}, 60_000);

const migrations: LiveMigration[] = [];

afterEach(async () => {
  for (const migration of migrations.splice(0)) await migration.close();
});

afterAll(() => Promise.all([source.remove(), target.remove()]));

async function prepare(database: string): Promise<void> {
  await source.psql('postgres', `CREATE DATABASE ${database}`);
  await source.psql(database, HOLD_SCHEMA);
}

async function start(database: string, plan: object = {}): Promise<LiveMigration> {
  const migration = await startMigration({ source, target, databases: [database], plan });
  migrations.push(migration);
  return migration;
}

/** What a person does in the Web UI: neither workflow can undo anything any more. */
async function terminate({ client, id, handle }: LiveMigration, database: string): Promise<void> {
  await client.workflow.getHandle(`${id}/${database}`).terminate('test');
  await handle.terminate('test');
}

async function cleanup(args: string[] = [], env: NodeJS.ProcessEnv = {}) {
  const command = pgtransit(['cleanup', ...args], {
    HOME: home,
    TEMPORAL_ADDRESS: inject('temporalAddress'),
    SOURCE_SERVICE_URI: source.uri('postgres'),
    TARGET_SERVICE_URI: target.uri('postgres'),
    ...env,
  });
  const code = await command.exitCode;
  const { stdout, stderr } = command;
  expect(stdout + stderr).not.toContain('hush-hush');
  return { code, stdout, stderr };
}

/** But for the sessions of who just looks: they come and go while a migration streams. */
const left = async (database: string): Promise<string[]> =>
  (await leftovers(source, target, [database]))
    .map((found) => found.replaceAll(/pgtransit_[0-9a-f]+_probe\n?/g, '').trimEnd())
    .filter((found) => !found.endsWith(': session'));

const setting = (database: string): Promise<string> =>
  source.psql(
    'postgres',
    `SELECT unnest(setconfig) FROM pg_db_role_setting s JOIN pg_database d ON d.oid = setdatabase WHERE datname = '${database}'`,
  );

describe('pgtransit cleanup', { timeout: PATIENCE_MS }, () => {
  test('drops what a migration left that was terminated while it copied, and lets a new one start', async () => {
    await prepare('copied');
    await target.psql('postgres', 'CREATE DATABASE copied');
    const hold = await holdAt(target, 'copied', 'copy');
    const migration = await start('copied');
    await hold.reached();

    const open = await cleanup(['--yes']);
    expect(open).toMatchObject({ code: 0 });
    expect(open.stdout).toContain(`pgtransit cancel ${migration.id}`);
    expect(open.stderr).not.toMatch(/dropped|ended|left/);
    await hold.reached();

    await migration.worker.kill();
    await terminate(migration, 'copied');
    await hold.release();
    const before = await left('copied');
    expect(before.join('\n')).toMatch(/publication[^]*slot[^]*session[^]*_holder[^]*schema/);

    const listed = await cleanup();
    expect(listed.code).toBe(0);
    expect(listed.stdout).toMatch(/terminated[^]*session[^]*_holder[^]*slot[^]*publication[^]*schema[^]*--yes/);
    expect(await left('copied')).toEqual(before);

    const dropped = await cleanup(['--yes']);
    expect(dropped).toMatchObject({ code: 0 });
    expect(await left('copied')).toEqual([]);
    expect(await cleanup(['--yes'])).toMatchObject({ code: 0, stdout: 'Nothing of pgtransit is on either server.\n' });

    // What was copied is kept, so the next migration wants it out of the way.
    await target.psql('postgres', 'DROP DATABASE copied WITH (FORCE)');
    const again = await start('copied');
    await again.phase('streaming');
    await again.signalStop();
    await again.report();
    await expectEqual(source, target, ['copied']);
  });

  test('drops what streams without a workflow, the slot too, and leaves alone what is open', async () => {
    await prepare('open');
    await prepare('streams');
    const open = await start('open');
    const streams = await start('streams');
    await open.phase('streaming');
    await streams.phase('streaming');
    await terminate(streams, 'streams');
    const before = { open: await left('open'), streams: await left('streams') };
    expect(before.streams.join('\n')).toMatch(/subscription/);

    const away = await cleanup(['--yes'], { TEMPORAL_ADDRESS: `127.0.0.1:${await freePort()}` });
    expect(away.code).toBe(1);
    expect(away.stdout).toContain('Temporal cannot be asked');
    const elsewhere = await cleanup(['--yes'], { TEMPORAL_ADDRESS: undefined });
    expect(elsewhere.code).toBe(1);
    expect(elsewhere.stdout).toContain('does not know its workflow');
    expect({ open: await left('open'), streams: await left('streams') }).toEqual(before);

    const { code, stdout } = await cleanup(['--yes', '--json']);
    expect(code).toBe(0);
    const states = (JSON.parse(stdout) as { migrations: { workflowId: string; state: string }[] }).migrations;
    expect(Object.fromEntries(states.map(({ workflowId, state }) => [workflowId, state]))).toEqual({
      [`${open.id}/open`]: 'open',
      [`${streams.id}/streams`]: 'ended',
    });
    expect(await left('streams')).toEqual([]);
    expect(await left('open')).toEqual(before.open);
    await source.psql('open', `INSERT INTO account VALUES (9999, 12345)`);
    await eventually(
      () => target.psql('open', 'SELECT count(*) FROM account WHERE balance = 12345'),
      (count) => count === '1',
    );
  });

  test('lifts a fence that was left, to what was set before; a database that cannot be mended stops nothing', async () => {
    await prepare('fenced');
    await source.psql('postgres', 'ALTER DATABASE fenced SET default_transaction_read_only = false');
    const migration = await start('fenced', { stop: { fence: 'read-only', maxLagBytes: 1_000_000_000 } });
    await migration.phase('streaming');
    const lock = await lockTable(target, 'fenced', 'account');
    await source.psql('fenced', 'UPDATE account SET balance = balance');
    await migration.signalStop();
    await eventually(
      () => setting('fenced'),
      (value) => value === 'default_transaction_read_only=on',
      60_000,
    );
    await migration.worker.kill();
    await terminate(migration, 'fenced');
    await lock.release();

    // The ledger of somebody else's idea of our schema.
    await target.psql('postgres', 'CREATE DATABASE strange');
    await target.psql('strange', 'CREATE SCHEMA pgtransit');
    const { code, stdout, stderr } = await cleanup(['--yes']);
    expect(code, stdout).toBe(1);
    expect(stdout).toContain('It does not say whose it is.');
    expect(stderr).toMatch(/lifted: fence .* of fenced on the source/);
    expect(await left('fenced')).toEqual([]);
    expect(await setting('fenced')).toBe('default_transaction_read_only=false');
    expect(await left('strange')).toHaveLength(1);
    await target.psql('postgres', 'DROP DATABASE strange');
  });
});
