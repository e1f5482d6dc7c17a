import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { own } from '../../lab/processes.ts';
import type { PostgresServer } from '../../lab/postgres-server.ts';
import { startPostgres } from '../../lab/postgres-server.ts';
import { expectEqual, leftovers } from '../support/live-migration.ts';
import { HOLD_SCHEMA, holdAt, NOT_PICKY, pickyAbout } from '../support/hold.ts';
import { startTraffic } from '../support/traffic.ts';
import { eventually } from '../support/workflow-harness.ts';
import type { RunningCommand } from './command.ts';
import { pgtransit } from './command.ts';

const PATIENCE_MS = 240_000;
const SECRETS = { source: 'hush-source', target: 'hush-target' };

/** One for each test, with writers' tables. */
const DATABASES = [
  'My-Db',
  'skipped',
  'stream',
  'killed',
  'interrupted',
  'parked',
  'one',
  'two',
  'looked-at',
  'open',
  'shut',
];

let source: PostgresServer;
let target: PostgresServer;

beforeAll(async () => {
  const settings = { max_wal_senders: '40', max_replication_slots: '40', max_connections: '300' };
  const auth = 'scram-sha-256';
  [source, target] = await Promise.all([
    startPostgres({ major: 17, auth, password: SECRETS.source, settings }),
    startPostgres({ major: 18, auth, password: SECRETS.target, settings: { ...settings, max_worker_processes: '60' } }),
  ]);
  // All of them before the first test: what a command leaves out is part of the migration's id.
  for (const database of DATABASES) {
    await source.psql('postgres', `CREATE DATABASE "${database}"`);
    await source.psql(database, HOLD_SCHEMA);
  }
}, 60_000);

afterAll(async () => {
  for (const command of running) command.kill('SIGKILL');
  // A server that a command started ends by itself.
  for (const home of homes) await untilNobodyUses(home);
  await Promise.all([source.remove(), target.remove()]);
});

const homes: string[] = [];
const running: RunningCommand[] = [];

/** Where one test's commands keep their state. */
function useHome(): string {
  const home = mkdtempSync(join(tmpdir(), 'pgtransit-home-'));
  own({ remove: [home] });
  homes.push(home);
  return home;
}

const untilNobodyUses = async (home: string): Promise<void> => {
  await eventually(
    () => Promise.resolve(pgrep(home)),
    (pids) => pids === '',
  );
};

const pgrep = (pattern: string): string => {
  try {
    return execFileSync('pgrep', ['-f', pattern], { encoding: 'utf8' }).trim();
  } catch {
    return '';
  }
};

const databases = async (server: PostgresServer): Promise<string[]> =>
  (await server.psql('postgres', `SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY 1`)).split('\n');

/** The command with both URIs, for these databases: everything else on the source is left out. */
async function pg(home: string, wanted: string | string[], ...flags: string[]): Promise<RunningCommand> {
  const others = (await databases(source)).filter((name) => ![wanted].flat().includes(name));
  const command = pgtransit(
    ['pg', '-s', source.uri('postgres'), '-t', target.uri('postgres'), '-f', others.join(','), ...flags],
    { HOME: home },
  );
  running.push(command);
  return command;
}

describe.concurrent('pgtransit pg without a Temporal server', { timeout: PATIENCE_MS }, () => {
  test('the documented command migrates everything but what it leaves out, and leaves nothing behind', async () => {
    const home = useHome();
    const traffic = startTraffic(source.uri('My-Db'), 50);
    const command = await pg(home, 'My-Db', '-d', '--max-replication-lag', '1', '--stop-replication', '--fence');
    await command.says(/streaming|stopping/);
    // Its own line and its programs'; what the other tests start is not its business.
    const pid = String(command.pid);
    const seen = execFileSync('ps', ['-o', 'args=', '--pid', pid, '--ppid', pid], { encoding: 'utf8' });
    expect(seen).toContain('pgtransit pg');
    expect(await command.exitCode).toBe(0);
    await traffic.stop();
    expect(command.stdout).toMatch(/My-Db +replication +done/);
    await expectEqual(source, target, ['My-Db']);
    expect(await leftovers(source, target, ['My-Db'])).toEqual([]);
    expect(await databases(target)).not.toContain('skipped');
    for (const secret of Object.values(SECRETS)) expect(seen + command.stdout + command.stderr).not.toContain(secret);

    const again = await pg(home, 'My-Db', '--max-replication-lag', '1', '--stop-replication', '--json');
    expect(await again.exitCode).toBe(0);
    expect(again.stderr).toContain('is finished already');
    expect(JSON.parse(again.stdout)).toMatchObject({ status: 'done', exitCode: 0, databases: [{ database: 'My-Db' }] });
  });

  test('without --stop-replication it returns when everything streams; with it, the same command ends it', async () => {
    const home = useHome();
    const first = await pg(home, 'stream');
    expect(await first.exitCode).toBe(0);
    expect(first.stdout).toMatch(/stream: streaming.*running/s);
    expect(first.stdout).toMatch(/pgtransit stop pgtransit-[0-9a-f]{12}/);
    // The replication needs no process of ours.
    await untilNobodyUses(home);
    await source.psql('stream', `INSERT INTO account VALUES (9999, 12345)`);
    await eventually(
      () => target.psql('stream', 'SELECT count(*) FROM account WHERE balance = 12345'),
      (count) => count === '1',
    );
    const report = join(home, 'report.json');
    const second = await pg(home, 'stream', '--stop-replication', '--report-file', report);
    expect(await second.exitCode).toBe(0);
    expect(second.stderr).toContain('going on with it');
    await expectEqual(source, target, ['stream']);
    expect(await leftovers(source, target, ['stream'])).toEqual([]);
    expect(statSync(report).mode & 0o777).toBe(0o600);
    expect(JSON.parse(readFileSync(report, 'utf8'))).toMatchObject({ status: 'done' });
  });

  test('killed at ten moments, the same command each time ends equal, and copies nothing twice', async () => {
    const home = useHome();
    const traffic = startTraffic(source.uri('killed'), 20);
    const finished = new Map<string, string>();
    for (let kill = 0; kill < 10; kill += 1) {
      const command = await pg(home, 'killed', '--stop-replication', '--fence');
      // Somewhere in each phase, and once when a table is surely finished.
      const moment = async () => {
        if (kill === 3)
          await eventually(
            () => finishedUnits('killed'),
            (units) => units.length > 0,
            PATIENCE_MS / 2,
          );
        else await delay(1_500 + kill * 350);
        return 'still runs';
      };
      const ended = await Promise.race([command.exitCode, moment()]);
      if (ended !== 'still runs') break;
      command.kill('SIGKILL');
      await command.exitCode;
      for (const [unit, time] of await finishedUnits('killed')) {
        expect(finished.get(unit) ?? time, unit).toBe(time);
        finished.set(unit, time);
      }
    }
    const last = await pg(home, 'killed', '--stop-replication', '--fence');
    expect(await last.exitCode, last.stdout + last.stderr).toBe(0);
    await traffic.stop();
    expect(finished.size).toBeGreaterThan(0);
    await expectEqual(source, target, ['killed']);
    expect(await leftovers(source, target, ['killed'])).toEqual([]);
  });

  test('Ctrl-C ends the process and says what stays; the same command goes on', async () => {
    const home = useHome();
    await target.psql('postgres', 'CREATE DATABASE interrupted');
    const hold = await holdAt(target, 'interrupted', 'copy');
    const first = await pg(home, 'interrupted', '--stop-replication');
    await hold.reached();
    first.kill('SIGINT');
    expect(await first.exitCode).toBe(130);
    expect(first.stderr).toMatch(/replication slots.*the same command again.*pgtransit cancel pgtransit-/s);
    // What it says is so.
    const left = (await leftovers(source, target, ['interrupted'])).join('\n');
    expect(left).toMatch(/^source postgres: slot pgtransit_.*^source postgres: session pgtransit_\w+_holder$/ms);
    await hold.release();
    const second = await pg(home, 'interrupted', '--stop-replication');
    expect(await second.exitCode).toBe(0);
    await expectEqual(source, target, ['interrupted']);
  });

  test('a failure parks: exit 1 with the reason, and the same command goes on when it is mended', async () => {
    const home = useHome();
    await source.psql('parked', `${pickyAbout(target)} CREATE INDEX ON held (picky(id))`);
    const first = await pg(home, 'parked', '--stop-replication');
    expect(await first.exitCode).toBe(1);
    expect(first.stdout).toMatch(/not on this server/);
    expect(first.stdout).toMatch(/the same command again/);
    await target.psql('parked', NOT_PICKY);
    const second = await pg(home, 'parked', '--stop-replication');
    expect(await second.exitCode).toBe(0);
    await expectEqual(source, target, ['parked']);
  });

  test('a database that pg_hba.conf keeps us out of fails alone, and the report names it', async () => {
    const home = useHome();
    const file = join(source.dataDir, 'pg_hba.conf');
    writeFileSync(file, `host shut all all reject\n${readFileSync(file, 'utf8')}`);
    await source.psql('postgres', 'SELECT pg_reload_conf()');
    const command = await pg(home, ['open', 'shut'], '--stop-replication', '--json');
    expect(await command.exitCode).toBe(1);
    expect(JSON.parse(command.stdout)).toMatchObject({
      status: 'failed',
      databases: [
        { database: 'open', status: 'done' },
        { database: 'shut', status: 'failed', message: expect.stringMatching(/pg_hba\.conf.*"shut"/) as string },
      ],
    });
    expect(command.stderr).toMatch(/^\d\d:\d\d:\d\d shut: failed, ! .*pg_hba\.conf/m);
    await expectEqual(source, target, ['open']);
    expect(await leftovers(source, target, ['open'])).toEqual([]);
    expect(await databases(target)).not.toContain('shut');
  });

  test('two migrations at once share the server of the state directory', async () => {
    const home = useHome();
    const commands = await Promise.all([pg(home, 'one', '--stop-replication'), pg(home, 'two', '--stop-replication')]);
    expect(await Promise.all(commands.map(({ exitCode }) => exitCode))).toEqual([0, 0]);
    const addresses = commands.map(({ stderr }) => /Web UI: (\S+)/.exec(stderr)?.[1]);
    expect(addresses[0]).toBe(addresses[1]);
    await expectEqual(source, target, ['one', 'two']);
  });

  test('--validate tells what is in the way and changes nothing', async () => {
    const home = useHome();
    await source.psql('looked-at', 'CREATE TABLE no_key (n int)');
    const command = await pg(home, 'looked-at', '--validate', '--force-method', 'replication');
    expect(await command.exitCode).toBe(1);
    expect(command.stdout).toMatch(/ERROR replica-identity \(source, looked-at, public.no_key\)/);
    expect(command.stdout).toMatch(/^ {4}ALTER TABLE .*REPLICA IDENTITY FULL;$/m);
    expect(await databases(target)).not.toContain('looked-at');
  });
});

/** Copies that are done, and when. */
async function finishedUnits(database: string): Promise<[string, string][]> {
  const exists = `SELECT to_regclass('pgtransit.unit') IS NOT NULL`;
  if (!(await databases(target)).includes(database) || (await target.psql(database, exists)) !== 't') return [];
  const text = await target.psql(
    database,
    `SELECT label || '|' || finished FROM pgtransit.unit WHERE state = 'done' AND kind = 'copy'`,
  );
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line): [string, string] => [line.split('|')[0] ?? '', line.split('|')[1] ?? '']);
}
