import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { own } from '../../lab/processes.ts';
import type { PostgresServer } from '../../lab/postgres-server.ts';
import { startPostgres } from '../../lab/postgres-server.ts';
import type { TemporalServer } from '../../lab/temporal-server.ts';
import { startTemporalServer } from '../../lab/temporal-server.ts';
import { HOLD_SCHEMA, holdAt } from '../support/hold.ts';
import type { LiveMigration } from '../support/live-migration.ts';
import { startMigration } from '../support/live-migration.ts';
import type { RunningCommand } from './command.ts';
import { pgtransit } from './command.ts';
import { pgtransitOnTerminal } from './pseudo-terminal.ts';

let source: PostgresServer;
let target: PostgresServer;
let temporal: TemporalServer;

beforeAll(async () => {
  const home = mkdtempSync(join(tmpdir(), 'pgtransit-follow-'));
  own({ remove: [home] });
  [source, target, temporal] = await Promise.all([
    startPostgres({ major: 17 }),
    startPostgres({ major: 18 }),
    // Kept in a file: the same migration is there after a crash.
    startTemporalServer({ dbFile: join(home, 'temporal.db') }),
  ]);
}, 120_000);

afterAll(() => Promise.all([source.remove(), target.remove(), temporal.stop()]));

const migrations: LiveMigration[] = [];
const running: RunningCommand[] = [];

afterEach(async () => {
  for (const command of running.splice(0)) command.kill('SIGKILL');
  await Promise.all(migrations.splice(0).map((migration) => migration.close()));
});

const quoted = (name: string): string => `"${name.replaceAll('"', '""')}"`;

/** A migration of one database that waits in the middle of its copy. */
async function held(database: string) {
  for (const server of [source, target]) await server.psql('postgres', `CREATE DATABASE ${quoted(database)}`);
  await source.psql(database, HOLD_SCHEMA);
  const hold = await holdAt(target, database, 'copy');
  const temporalAddress = temporal.address;
  const migration = await startMigration({ source, target, databases: [database], temporalAddress });
  migrations.push(migration);
  await hold.reached();
  return { migration, hold };
}

const env = () => ({ TEMPORAL_ADDRESS: temporal.address });

describe('following a migration', { timeout: 240_000 }, () => {
  test('on a terminal it is redrawn in place; no name escapes, and the terminal is as it was', async () => {
    const name = `\x1b[2J数据库 "O'x`;
    const { migration, hold } = await held(name);
    const watch = pgtransitOnTerminal(['watch', migration.id], env(), { columns: 100, rows: 40 });
    await watch.shows(/^\\u001b\[2J数据库 "O'x {2}copying +\[[#.]+\].* of .*\n +.*public\.held/m);
    await hold.release();
    await migration.phase('streaming');
    await watch.shows(/"O'x {2}streaming .* behind\nTo cut over .*\n {2}pgtransit stop live-/);
    await migration.signalStop();
    await watch.ended;
    const [before, after] = watch.shown().join('\n').split('code 0\n');
    const modes = (text = '') =>
      text
        .trim()
        .split('\n')
        .filter((line) => /^[a-z-]|^speed/.test(line));
    const shown = (before ?? '').split('\n');
    expect(modes(after)).toContainEqual(expect.stringContaining('echo'));
    for (const mode of modes(after)) expect(shown).toContain(mode);
    // One view only, with its last state, is left.
    expect(shown.filter((line) => line.startsWith(`${migration.id}: done`))).toHaveLength(2);
    expect(shown.filter((line) => line.includes('copying'))).toEqual([]);
    expect(shown.join('\n')).toMatch(/^\\u001b\[2J数据库 "O'x +replication +done /m);
  });

  test('Ctrl-C ends it, and the migration goes on', async () => {
    const { migration, hold } = await held('typed');
    const watch = pgtransitOnTerminal(['watch', migration.id], env(), { columns: 100, rows: 40 });
    await watch.shows(/typed +copying/);
    watch.type('\x03');
    await watch.ended;
    const shown = watch.shown();
    expect(shown.filter((line) => /^typed +copying/.test(line))).toHaveLength(1);
    expect(shown.join('\n')).toContain('code 130\n');
    await hold.release();
    await migration.phase('streaming');
  });

  test('in a log it says what changes; a Temporal server that crashes is waited for', async () => {
    const { migration, hold } = await held('logged');
    const watch = pgtransit(['watch', migration.id, '--json'], env());
    running.push(watch);
    await watch.says(/^\d\d:\d\d:\d\d logged: copying, \d of \d+ tables, /m);
    await temporal.kill();
    await watch.says(/^\d\d:\d\d:\d\d ! No news from Temporal for \d+(\.\d)? s: .+\. Waiting for it\.$/m);
    await temporal.start();
    await watch.says(/ There is news again\.$/m);
    await hold.release();
    await watch.says(/ logged: streaming, /);
    await migration.signalStop();
    expect(await watch.exitCode).toBe(0);
    expect(watch.stderr).toMatch(/ logged: done\n$/);
    expect(watch.stderr).not.toContain('\x1b');
    expect(JSON.parse(watch.stdout)).toMatchObject({
      ...{ id: migration.id, status: 'done', exitCode: 0, validation: null },
      databases: [{ database: 'logged', status: 'done' }],
    });
  });
});
