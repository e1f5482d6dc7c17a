import { afterAll, beforeAll, expect, inject, test } from 'vitest';
import type { PostgresServer } from '../../lab/postgres-server.ts';
import { startPostgres } from '../../lab/postgres-server.ts';
import { HOLD_SCHEMA, holdAt } from '../support/hold.ts';
import type { LiveMigration } from '../support/live-migration.ts';
import { leftovers, startMigration } from '../support/live-migration.ts';
import { pgtransit } from './command.ts';

let source: PostgresServer;
let target: PostgresServer;
const migrations: LiveMigration[] = [];

beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres({ major: 17 }), startPostgres({ major: 18 })]);
});

afterAll(async () => {
  for (const migration of migrations) await migration.close();
  await Promise.all([source.remove(), target.remove()]);
});

async function start(database: string): Promise<LiveMigration> {
  const migration = await startMigration({ source, target, databases: [database] });
  migrations.push(migration);
  return migration;
}

async function prepare(database: string): Promise<void> {
  await source.psql('postgres', `CREATE DATABASE ${database}`);
  await source.psql(database, HOLD_SCHEMA);
  await target.psql('postgres', `CREATE DATABASE ${database}`);
}

/** As an operator does who does not know better. */
async function terminate({ client, id }: LiveMigration, database: string): Promise<void> {
  await client.workflow.getHandle(`${id}/${database}`).terminate('a test');
}

async function cleanup(flags: string[] = [], env: NodeJS.ProcessEnv = {}) {
  const command = pgtransit(['cleanup', ...flags], {
    TEMPORAL_ADDRESS: inject('temporalAddress'),
    SOURCE_SERVICE_URI: source.uri('postgres'),
    TARGET_SERVICE_URI: target.uri('postgres'),
    ...env,
  });
  const code = await command.exitCode;
  return { code, stdout: command.stdout, stderr: command.stderr };
}

test('cleanup drops what terminated migrations left, and nothing of an open one', { timeout: 180_000 }, async () => {
  await Promise.all(['copied', 'streamed', 'open'].map(prepare));
  const hold = await holdAt(target, 'copied', 'copy');
  const [copied, streamed, open] = await Promise.all([start('copied'), start('streamed'), start('open')]);
  await hold.reached();
  await Promise.all([streamed.phase('streaming'), open.phase('streaming')]);
  await Promise.all([terminate(copied, 'copied'), terminate(streamed, 'streamed')]);
  for (const migration of [copied, streamed]) await expect(migration.report()).rejects.toThrow();
  await hold.release();
  // A fence that the ledger booked, as a cutover leaves it that is terminated.
  await source.psql('postgres', 'ALTER DATABASE streamed SET default_transaction_read_only = on');
  await target.psql(
    'streamed',
    `INSERT INTO pgtransit.event (step, warning, message) VALUES ('fence', false, '{"readOnly": null}')`,
  );

  const looked = await cleanup();
  expect(looked.code).toBe(1);
  expect(looked.stdout).toMatch(/source +copied +replication slot .*left over/);
  expect(looked.stdout).toMatch(/source +copied +session .*_holder.*left over/);
  expect(looked.stdout).toMatch(/target +streamed +subscription .*left over/);
  expect(looked.stdout).toMatch(/source +open +replication slot .*in use by live-/);
  const isThere = await leftovers(source, target, ['copied', 'streamed', 'open']);

  // Without Temporal nobody knows what is in use.
  expect(await cleanup(['--yes'], { TEMPORAL_ADDRESS: '127.0.0.1:1' })).toMatchObject({ code: 1 });
  expect(await leftovers(source, target, ['copied', 'streamed', 'open'])).toEqual(isThere);

  const dropped = await cleanup(['--yes']);
  expect(dropped.code).toBe(1); // the open one's are still there
  expect(await leftovers(source, target, ['copied', 'streamed'])).toEqual([]);
  await source.psql('streamed', 'INSERT INTO account VALUES (9999, 1)');
  expect((await open.progress()).phase).toBe('streaming');

  await open.signalStop();
  expect((await open.report()).status).toBe('done');
  expect(await cleanup(['--yes'])).toMatchObject({
    code: 0,
    stdout: 'Nothing of pgtransit is on these servers.\n',
  });
});
