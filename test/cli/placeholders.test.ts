import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import { own } from '../../lab/processes.ts';
import type { PostgresServer } from '../../lab/postgres-server.ts';
import { startPostgres } from '../../lab/postgres-server.ts';
import { temporalCliPath } from '../../src/temporal/cli-path.ts';
import type { ClusterReport } from '../../src/domain/progress.ts';
import { HOLD_SCHEMA, holdAt } from '../support/hold.ts';
import type { RunningCommand } from './command.ts';
import { pgtransit } from './command.ts';

let source: PostgresServer;
let target: PostgresServer;
let home: string;

beforeAll(async () => {
  [source, target] = await Promise.all([
    startPostgres({ major: 17, auth: 'scram-sha-256' }),
    startPostgres({ major: 18, auth: 'scram-sha-256' }),
  ]);
  home = mkdtempSync(join(tmpdir(), 'pgtransit-home-'));
  own({ remove: [home] });
  // Whoever is no superuser cannot read what is stored of passwords.
  await source.psql(
    'postgres',
    `CREATE ROLE mover LOGIN PASSWORD 'moves'; GRANT EXECUTE ON FUNCTION pg_control_system() TO mover;
     CREATE ROLE app LOGIN PASSWORD 'of the source'; CREATE ROLE nobody NOLOGIN`,
  );
  await source.psql('postgres', 'CREATE DATABASE shop OWNER mover');
  await source.psql('shop', `SET ROLE mover; ${HOLD_SCHEMA}`);
}, 60_000);

afterAll(() => Promise.all([source.remove(), target.remove()]));

interface Answer {
  id: string;
  placeholders?: Record<string, string>;
  roles: ClusterReport['roles'];
}

function pg(...flags: string[]): RunningCommand {
  const mover = source.uri('postgres', { user: 'mover', password: 'moves' });
  const uris = ['-s', mover, '-t', target.uri('postgres'), '-f', 'postgres'];
  return pgtransit(['pg', ...uris, '--force-method', 'dump', ...flags], {
    HOME: home,
    TEMPORAL_ADDRESS: inject('temporalAddress'),
  });
}

async function migrate(report: string, ...flags: string[]) {
  const file = join(home, report);
  const command = pg('--report-file', file, '--json', ...flags);
  expect(await command.exitCode, command.stdout + command.stderr).toBe(0);
  expect(statSync(file).mode & 0o777).toBe(0o600);
  const { stdout, stderr } = command;
  return { answer: JSON.parse(stdout) as Answer, file: readFileSync(file, 'utf8'), stdout, stderr };
}

const logsIn = (directory: string): string =>
  readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && !entry.name.endsWith('.json'))
    .map((entry) => readFileSync(join(entry.parentPath, entry.name), 'latin1'))
    .join('\n');

const historiesOf = (id: string): string =>
  ['', '/shop']
    .map((child) =>
      execFileSync(
        temporalCliPath(),
        ['workflow', 'show', '-w', `${id}${child}`, '--output', 'json', '--address', inject('temporalAddress')],
        { encoding: 'utf8', maxBuffer: 64 * 1024 * 1024 },
      ),
    )
    .map((history) => history + decoded(history))
    .join('\n');

/** Payloads stand in histories as base64. */
const decoded = (history: string): string =>
  [...history.matchAll(/"data": "([^"]+)"/g)].map(([, data = '']) => Buffer.from(data, 'base64').toString()).join('\n');

const FORGET = 'DROP DATABASE IF EXISTS shop; DROP ROLE app, mover, nobody';

/** Logs in to the target, which asks everybody for a password. */
const whoIs = (user: string, password: string): string =>
  execFileSync(
    join(target.binDir, 'psql'),
    ['-XAtc', 'SELECT current_user', '-d', target.uri('postgres', { user, password })],
    { env: target.env, encoding: 'utf8' },
  ).trim();

describe('passwords that are made up for roles', { timeout: 120_000 }, () => {
  test('are shown to who asks for them, and to nobody else', async () => {
    const { answer, file, stderr } = await migrate('shown.json', '--show-passwords');
    expect(Object.keys(answer.placeholders ?? {})).toEqual(['app', 'mover']);
    const password = answer.placeholders?.['app'] ?? '';
    expect(answer.roles).toContainEqual(expect.objectContaining({ role: 'app', status: 'created', placeholder: true }));
    expect(
      await target.psql('postgres', `SELECT count(*) FROM pg_authid WHERE rolname = 'nobody' AND rolpassword IS NULL`),
    ).toBe('1');
    expect(whoIs('app', password)).toBe('app');
    expect(file).toContain(password);
    expect(stderr + logsIn(home) + readFileSync(target.logFile, 'utf8')).not.toContain(password);
    expect(historiesOf(answer.id)).toContain('"role":"app"');
    expect(historiesOf(answer.id)).not.toContain(password);
  });

  test('are told when it is interrupted, and called unknown by the process that goes on', async () => {
    await target.psql('postgres', FORGET);
    await target.psql('postgres', 'CREATE DATABASE shop');
    const hold = await holdAt(target, 'shop', 'copy');
    const first = pg('--again', '--show-passwords');
    await hold.reached();
    first.kill('SIGINT');
    expect(await first.exitCode).toBe(130);
    const password = /^Password of role app: (\S+)$/m.exec(first.stderr)?.[1] ?? '';
    expect(whoIs('app', password)).toBe('app');
    await hold.release();

    const second = pg('--show-passwords');
    expect(await second.exitCode, second.stdout + second.stderr).toBe(0);
    expect(second.stderr).toContain('going on with it');
    expect(second.stdout).toContain('app: was made up by another process, and nobody knows it');
    expect(second.stdout).toContain(`ALTER ROLE "app" PASSWORD '…';`);
    expect(second.stdout + second.stderr).not.toContain(password);
  });

  test('are known to nobody without it, and the role says that it needs another', async () => {
    await target.psql('postgres', FORGET);
    const { answer, file } = await migrate('hidden.json', '--again');
    expect(answer.placeholders).toBeUndefined();
    expect(file).not.toContain('placeholders');
    const app = answer.roles.find(({ role }) => role === 'app');
    expect(app).toMatchObject({ status: 'created', message: 'It has a random password: set a new one.' });
  });
});
