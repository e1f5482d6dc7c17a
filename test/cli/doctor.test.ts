import { chmodSync, mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import { own } from '../../lab/processes.ts';
import type { PostgresServer } from '../../lab/postgres-server.ts';
import { startPostgres } from '../../lab/postgres-server.ts';
import { isAtLeast } from '../../src/cli/doctor/machine.ts';
import { freePort } from '../../src/temporal/free-port.ts';
import { pgtransit } from './command.ts';

const PATIENCE_MS = 120_000;

let source: PostgresServer;
let target: PostgresServer;
let home: string;

beforeAll(async () => {
  const password = 'hush-hush';
  [source, target] = await Promise.all([
    startPostgres({ major: 17, auth: 'scram-sha-256', password, settings: { wal_level: 'replica' } }),
    startPostgres({ major: 18, auth: 'scram-sha-256', password }),
  ]);
  home = mkdtempSync(join(tmpdir(), 'pgtransit-home-'));
  own({ remove: [home] });
}, 60_000);

afterAll(() => Promise.all([source.remove(), target.remove()]));

async function doctor(args: string[] = [], env: NodeJS.ProcessEnv = {}) {
  const command = pgtransit(['doctor', ...args], { HOME: home, TEMPORAL_ADDRESS: inject('temporalAddress'), ...env });
  const code = await command.exitCode;
  const { stdout, stderr } = command;
  expect(stdout + stderr).not.toContain('hush-hush');
  return { code, stdout, stderr };
}

describe('pgtransit doctor', { timeout: PATIENCE_MS }, () => {
  test('tells of programs, Temporal and both servers what they are, and what to do; a warning is no failure', async () => {
    const { code, stdout } = await doctor(['-s', source.uri('postgres'), '-t', target.uri('postgres')]);
    expect(code, stdout).toBe(0);
    for (const line of [
      /^ok {7}Node +\d+\.\d+/m,
      /^ok {7}pg_dump .* take 18, /m,
      /^ok {7}pg_restore .* take 18, /m,
      /^ok {7}Temporal CLI +temporal version /m,
      /^ok {7}Temporal +127\.0\.0\.1:\d+, namespace default, as configured/m,
      /^ok {7}Search attributes +registered/m,
      /^warning {2}Workers +Nobody polls task queue pgtransit\.\n +Start `pgtransit worker`/m,
      /^ok {7}Source +PostgreSQL 17\./m,
      /^ok {7}Source role +postgres, superuser/m,
      /^warning {2}Source wal_level +It is replica.*\n +ALTER SYSTEM SET wal_level/m,
      /^ok {7}Target clock +0\.\d s/m,
    ])
      expect(stdout).toMatch(line);
  });

  test('where no Temporal server is configured, looks at its own', async () => {
    const { code, stdout } = await doctor([], { TEMPORAL_ADDRESS: undefined });
    expect(code, stdout).toBe(0);
    expect(stdout).toMatch(/^ok {7}Temporal .* our own server/m);
    expect(stdout).toMatch(/^ok {7}Retention .* 90 days/m);
  });

  test('what is not there is a problem, says what to do, and makes the exit code 1', async () => {
    const programs = join(home, 'none');
    mkdirSync(programs);
    const wrong = new URL(source.uri('postgres'));
    wrong.password = 'hush-hush-wrong';
    const { code, stdout } = await doctor(['--json', '-s', wrong.href], {
      PGTRANSIT_PG_BIN: programs,
      TEMPORAL_ADDRESS: `127.0.0.1:${await freePort()}`,
      TARGET_SERVICE_URI: `postgres://u:hush-hush@127.0.0.1:${await freePort()}/d`,
    });
    expect(code).toBe(1);
    const { checks } = JSON.parse(stdout) as { checks: { what: string; status: string; message: string }[] };
    expect(checks.filter(({ status }) => status === 'problem').map(({ what }) => what)).toEqual([
      'pg_dump',
      'pg_restore',
      'Temporal',
      'Source',
      'Target',
    ]);
  });

  test('tells which attributes a role that is no superuser lacks', async () => {
    await source.psql('postgres', `CREATE ROLE plain LOGIN PASSWORD 'hush-hush'`);
    const uri = new URL(source.uri('postgres'));
    uri.username = 'plain';
    const { code, stdout } = await doctor(['-s', uri.href]);
    expect(code).toBe(0);
    expect(stdout).toMatch(
      /^warning {2}Source role +plain, no superuser, neither REPLICATION nor CREATEDB\n +For repl/m,
    );
  });

  test('a pg_dump that is older than the source is a problem', async () => {
    const programs = join(home, 'old');
    mkdirSync(programs);
    for (const name of ['pg_dump', 'pg_restore']) {
      writeFileSync(join(programs, name), '#!/bin/sh\necho "$0 (PostgreSQL) 14.1"\n');
      chmodSync(join(programs, name), 0o755);
    }
    const { code, stdout } = await doctor(['-s', source.uri('postgres')], { PGTRANSIT_PG_BIN: programs });
    expect(code).toBe(1);
    expect(stdout).toMatch(/^problem {2}pg_dump .* is of version 14/m);
  });

  test('compares versions by their numbers', () => {
    expect(isAtLeast('20.19.0', '20.19')).toBe(true);
    expect(isAtLeast('20.9.5', '20.19')).toBe(false);
    expect(isAtLeast('22.0.0', '20.19')).toBe(true);
    expect(isAtLeast('9.99.9', '20.19')).toBe(false);
  });
});
