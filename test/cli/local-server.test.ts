import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { afterEach, describe, expect, test } from 'vitest';
import { projectRoot } from '../../lab/tools.ts';
import { temporalCliPath } from '../../src/temporal/cli-path.ts';
import { openMigrations } from '../../src/temporal/dev-server.ts';
import type { LocalServer } from '../../src/temporal/local-server.ts';
import { joinLocalServer } from '../../src/temporal/local-server.ts';
import { readServerState, startOfProcess, writeServerState } from '../../src/temporal/server-state.ts';
import { stateDirectory } from '../../src/temporal/state-dir.ts';
import { eventually } from '../support/copy-fixture.ts';

const joined: LocalServer[] = [];
const directories: string[] = [];

afterEach(async () => {
  for (const server of joined.splice(0)) server.leave();
  for (const directory of directories.splice(0)) {
    await untilGone(directory);
    rmSync(dirname(directory), { recursive: true });
  }
}, 60_000);

function newStateDir(): string {
  const directory = stateDirectory({ PGTRANSIT_STATE_DIR: join(mkdtempSync(join(tmpdir(), 'state-')), 'pgtransit') });
  directories.push(directory);
  return directory;
}

async function enter(directory: string, env: NodeJS.ProcessEnv = process.env): Promise<LocalServer> {
  const server = await joinLocalServer(directory, env);
  joined.push(server);
  return server;
}

const stateOf = (directory: string) => {
  const state = readServerState(directory);
  if (state === null) throw new Error(`${directory} has no server.json.`);
  return state;
};

function isRunning(directory: string): boolean {
  const state = readServerState(directory);
  return state !== null && state.started !== null && startOfProcess(state.pid) === state.started;
}

async function untilGone(directory: string): Promise<void> {
  await eventually('the supervisor has ended', () => Promise.resolve(supervisorOf(directory) === null));
  expect(isRunning(directory)).toBe(false);
}

const temporal = (server: LocalServer, ...args: string[]): string =>
  execFileSync(temporalCliPath(), [...args, '--address', server.address], { encoding: 'utf8' });

function startMigration(server: LocalServer, id: string): void {
  temporal(server, 'workflow', 'start', '--task-queue', 'nobody', '--type', 'migrateCluster', '--workflow-id', id);
}

function supervisorOf(directory: string): number | null {
  const { stdout } = spawnSync('pgrep', ['-f', `supervisor-main.js ${directory}`], { encoding: 'utf8' });
  return stdout.trim() === '' ? null : Number(stdout.trim());
}

describe('the local Temporal server', { timeout: 60_000 }, () => {
  test('is shared by all who join, keeps what has finished for 90 days, and ends with the last of them', async () => {
    const directory = newStateDir();
    const [one, other] = await Promise.all([enter(directory), enter(directory)]);
    expect(other.address).toBe(one.address);
    expect(statSync(directory).mode & 0o077).toBe(0);
    expect(temporal(one, 'operator', 'namespace', 'describe', 'default')).toMatch(/Retention\S*\s+2160h/);
    startMigration(one, 'kept');
    one.leave();
    // Temporal lists a workflow a moment after its start.
    await eventually('the open migration', async () => (await openMigrations(other.address)).includes('kept'));
    other.leave();
    await untilGone(directory);
    expect(stateOf(directory).open).toEqual(['kept']);
    const again = await enter(directory);
    expect(again).toMatchObject({ address: one.address, webUi: one.webUi });
    expect(await openMigrations(again.address)).toEqual(['kept']);
  });

  test('can be joined at any moment while the server before it ends', async () => {
    const directory = newStateDir();
    const first = await enter(directory);
    for (const wait of [2_600, 3_000, 3_300]) {
      joined.pop()?.leave();
      await delay(wait);
      const next = await enter(directory);
      expect(next.address).toBe(first.address);
      expect(await openMigrations(next.address)).toEqual([]);
    }
  });

  test('goes on at the same address when it or its supervisor is killed', async () => {
    const directory = newStateDir();
    const server = await enter(directory);
    startMigration(server, 'kept');
    const killed = stateOf(directory).pid;
    process.kill(killed, 'SIGKILL');
    await eventually('another server', () => Promise.resolve(stateOf(directory).pid !== killed));
    await eventually('the open migration', async () => (await openMigrations(server.address)).includes('kept'));

    const orphan = stateOf(directory).pid;
    process.kill(Number(supervisorOf(directory)), 'SIGKILL');
    await eventually('another server', () => Promise.resolve(stateOf(directory).pid !== orphan));
    expect(startOfProcess(orphan)).toBeNull();
    expect(await openMigrations(server.address)).toEqual(['kept']);
  });

  test('ends when the only process that used it was killed', async () => {
    const directory = newStateDir();
    const module = pathToFileURL(join(projectRoot, 'dist/src/temporal/local-server.js')).href;
    const program = `const { joinLocalServer } = await import(${JSON.stringify(module)});
      await joinLocalServer(${JSON.stringify(directory)}, process.env); console.log('joined'); setInterval(() => 0, 1000);`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await new Promise((resolve) => child.stdout.once('data', resolve));
    expect(isRunning(directory)).toBe(true);
    child.kill('SIGKILL');
    await untilGone(directory);
  });

  test('refuses a file of another version of the CLI while a migration is open there, and only then', async () => {
    const directory = newStateDir();
    const server = await enter(directory);
    startMigration(server, 'unfinished');
    server.leave();
    await untilGone(directory);
    writeServerState(directory, { ...stateOf(directory), cliVersion: 'temporal version 0.0.1' });
    await expect(enter(directory)).rejects.toThrow(
      /written by temporal version 0.0.1 and holds unfinished, not finished/,
    );
    await untilGone(directory);
    writeServerState(directory, { ...stateOf(directory), open: null });
    await expect(enter(directory)).rejects.toThrow(/may hold a migration that is not finished/);
    await untilGone(directory);
    writeServerState(directory, { ...stateOf(directory), open: [] });
    await enter(directory);
    expect(stateOf(directory).cliVersion).toContain('temporal version');
    expect(stateOf(directory).cliVersion).not.toContain('0.0.1');
  });

  test('that cannot start says why, with the end of its log', async () => {
    const directory = newStateDir();
    const broken = join(directory, 'temporal');
    writeFileSync(
      broken,
      '#!/bin/sh\n[ "$1" = --version ] && echo "temporal version 9" && exit\necho no disk left; exit 1\n',
    );
    chmodSync(broken, 0o755);
    await expect(enter(directory, { ...process.env, TEMPORAL_CLI_PATH: broken })).rejects.toThrow(/no disk left/);
    await untilGone(directory);
    await expect(enter(directory, { ...process.env, TEMPORAL_CLI_PATH: '/nowhere' })).rejects.toThrow(
      /TEMPORAL_CLI_PATH is "\/nowhere"/,
    );
  });

  test('is told no connection string', async () => {
    const directory = newStateDir();
    await enter(directory, { ...process.env, SOURCE_SERVICE_URI: 'postgres://app:hush@host/db' });
    for (const pid of [supervisorOf(directory), stateOf(directory).pid])
      expect(readFileSync(`/proc/${String(pid)}/environ`, 'utf8')).not.toContain('hush');
  });
});
