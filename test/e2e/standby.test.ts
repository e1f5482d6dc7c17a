import path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startPostgres, type PostgresServer } from '../../lab/postgres-server.ts';
import { makeServerDir } from '../../lab/postgres-template.ts';
import { own } from '../../lab/processes.ts';
import { runProgram } from '../../lab/run-program.ts';
import { workDir } from '../../lab/tools.ts';
import { expectEqual, leftovers, startMigration } from '../support/live-migration.ts';
import { TRAFFIC_SCHEMA } from '../support/traffic.ts';

const DATABASE = 'away';
let primary: PostgresServer;
let standby: PostgresServer;
let target: PostgresServer;
const closing: (() => Promise<unknown> | void)[] = [];

beforeAll(async () => {
  [primary, target] = await Promise.all([startPostgres({ major: 17 }), startPostgres({ major: 18 })]);
  closing.push(
    () => primary.remove(),
    () => target.remove(),
  );
  await primary.psql('postgres', `CREATE DATABASE ${DATABASE}`);
  await primary.psql(DATABASE, TRAFFIC_SCHEMA);
  await primary.psql(DATABASE, `SELECT lo_from_bytea(0, 'large')`);
  const home = makeServerDir(path.join(workDir(), 'standby-'));
  const dataDir = path.join(home, 'data');
  closing.push(own({ dataDir, remove: [home] }));
  const backup = ['-D', dataDir, '-d', primary.uri(), '-R', '-c', 'fast', '--no-sync'];
  await runProgram(path.join(primary.binDir, 'pg_basebackup'), backup, { env: { ...process.env, ...primary.env } });
  standby = await startPostgres({ major: 17, dataDir });
  closing.push(() => standby.stop('immediate'));
});

afterAll(async () => {
  for (const close of closing.reverse()) await close();
});

test('a standby is dumped: rows, sequences and large objects as they are there, compared on both sides', async () => {
  const plan = { method: 'auto', verify: 'copied', onError: 'fail' };
  const migration = await startMigration({ source: standby, target, databases: [DATABASE], plan });
  try {
    const report = await migration.report();
    expect(report.databases[0]).toMatchObject({ status: 'done', method: 'dump' });
    await expectEqual(standby, target, [DATABASE]);
    expect(await target.psql(DATABASE, 'SELECT count(*) FROM pg_largeobject_metadata')).toBe('1');
    expect(await leftovers(standby, target, [DATABASE])).toEqual([]);
  } finally {
    await migration.close();
  }
}, 120_000);
