import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client, Connection } from '@temporalio/client';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, test } from 'vitest';
import { own } from '../../lab/processes.ts';
import type { PostgresServer } from '../../lab/postgres-server.ts';
import { startPostgres } from '../../lab/postgres-server.ts';
import type { ClusterProgress } from '../../src/domain/progress.ts';
import type { LocalServer } from '../../src/temporal/local-server.ts';
import { joinLocalServer } from '../../src/temporal/local-server.ts';
import { stateDirectory } from '../../src/temporal/state-dir.ts';
import { HOLD_SCHEMA, holdAt, NOT_PICKY, pickyAbout } from '../support/hold.ts';
import { expectEqual, leftovers } from '../support/live-migration.ts';
import { eventually } from '../support/workflow-harness.ts';
import type { RunningCommand } from './command.ts';
import { pgtransit } from './command.ts';

let source: PostgresServer;
let target: PostgresServer;

beforeAll(async () => {
  [source, target] = await Promise.all([
    startPostgres({ major: 17, auth: 'scram-sha-256', password: 'hush-source' }),
    startPostgres({ major: 18, auth: 'scram-sha-256', password: 'hush-target' }),
  ]);
}, 60_000);

afterAll(() => Promise.all([source.remove(), target.remove()]));

let home: string;
/** Keeps the commands' Temporal server running between two of them. */
let server: LocalServer;
const running: RunningCommand[] = [];

beforeEach(async () => {
  home = mkdtempSync(join(tmpdir(), 'pgtransit-home-'));
  own({ remove: [home] });
  server = await joinLocalServer(stateDirectory({ HOME: home }), process.env);
});

afterEach(() => {
  for (const command of running.splice(0)) command.kill('SIGKILL');
  server.leave();
});

const uris = () => ({ SOURCE_SERVICE_URI: source.uri('postgres'), TARGET_SERVICE_URI: target.uri('postgres') });

/** Runs a command to its end. */
async function run(args: string[], env: NodeJS.ProcessEnv = {}) {
  const command = pgtransit(args, { HOME: home, ...env });
  running.push(command);
  const code = await command.exitCode;
  return { code, stdout: command.stdout, stderr: command.stderr };
}

async function prepare(database: string): Promise<string[]> {
  const others = await source.psql('postgres', 'SELECT datname FROM pg_database WHERE NOT datistemplate');
  await source.psql('postgres', `CREATE DATABASE "${database}"`);
  await source.psql(database, HOLD_SCHEMA);
  return ['pg', '-f', others.split('\n').join(',')];
}

describe('commands about a migration that this machine carries out', { timeout: 240_000 }, () => {
  test('status, list, rehearse, stop and report', async () => {
    const command = await prepare('managed');
    expect((await run(['status'])).stdout).toBe('No migration is open.\n');
    expect(await run(command, uris())).toMatchObject({ code: 0 });
    const status = await run(['status', '--json']);
    expect(JSON.parse(status.stdout)).toMatchObject([{ phase: 'streaming', databases: [{ database: 'managed' }] }]);
    expect((await run(['status'])).stdout).toContain('No worker carries out its steps now');
    expect((await run(['list'])).stdout).toMatch(/pgtransit-[0-9a-f]{12} +running/);

    expect(await run(['rehearse'])).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('Nobody carries this migration out now. Run ') as string,
    });

    const kept = await run(['stop', '--reason', 'a test']);
    expect(kept).toMatchObject({
      code: 0,
      stdout: expect.stringContaining('Nobody carries this migration out') as string,
    });
    const stopped = await run(['stop'], uris());
    expect(stopped).toMatchObject({ code: 0, stdout: expect.stringMatching(/managed +replication +done/) as string });
    await expectEqual(source, target, ['managed']);
    expect(await leftovers(source, target, ['managed'])).toEqual([]);

    expect((await run(['report', '--json'])).stdout).toContain('"status": "done"');
    expect(await run(['stop'])).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('No migration is open') as string,
    });
    expect((await run(['report', 'nonesuch'])).stderr).toContain('There is no migration nonesuch');
  });

  test('cancel undoes what an interrupted command left', async () => {
    const command = await prepare('cancelled');
    await target.psql('postgres', 'CREATE DATABASE cancelled');
    const hold = await holdAt(target, 'cancelled', 'copy');
    const first = pgtransit(command, { HOME: home, ...uris() });
    running.push(first);
    await hold.reached();
    first.kill('SIGINT');
    expect(await first.exitCode).toBe(130);
    await hold.release();
    expect(await run(['cancel'], uris())).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('--yes') as string,
    });
    const cancelled = await run(['cancel', '--yes'], uris());
    expect(cancelled).toMatchObject({ code: 0, stdout: expect.stringMatching(/: cancelled$/m) as string });
    expect(await leftovers(source, target, ['cancelled'])).toEqual([]);
  });
});

describe('a migration that waits for a person', { timeout: 240_000 }, () => {
  test('is shown by watch, also while nobody carries it out, and answered by resolve', async () => {
    const command = await prepare('answered');
    await source.psql('answered', `${pickyAbout(target)} CREATE INDEX ON held (picky(id))`);
    const parked = await run(command, uris());
    expect(parked).toMatchObject({
      code: 1,
      stdout: expect.stringContaining('pgtransit resolve retry pgtransit-') as string,
    });

    const glance = pgtransit(['watch'], { HOME: home });
    running.push(glance);
    await glance.says(/^\d\d:\d\d:\d\d answered: [a-z]+, .*! .*not on this server/m);
    glance.kill('SIGINT');
    expect(await glance.exitCode).toBe(130);

    expect(await run(['resolve', 'skip'])).toMatchObject({
      code: 1,
      stderr: 'pgtransit: The step at which answered is parked cannot be skipped; answer with retry or abort.\n',
    });
    expect(await run(['resolve', 'retry', '--database', 'nosuch'])).toMatchObject({
      code: 1,
      stderr: 'pgtransit: This migration has no database "nosuch".\n',
    });
    // What it fails at is still there.
    expect(await run(['resolve', 'retry'], uris())).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('retry was passed on to answered.') as string,
      stdout: expect.stringMatching(/not on this server.*: parked$/ms) as string,
    });

    await target.psql('answered', NOT_PICKY);
    const watch = pgtransit(['watch'], { HOME: home });
    running.push(watch);
    const resolved = await run(['resolve', 'retry', '--database', 'answered'], uris());
    expect(resolved.code, resolved.stderr).toBe(0);
    expect(resolved.stdout).toMatch(/^answered: streaming.*: running$/ms);
    await watch.says(/ answered: streaming, /);
    expect(await run(['stop'], uris())).toMatchObject({ code: 0 });
    expect(await watch.exitCode, watch.stderr).toBe(0);
    expect(watch.stdout).toMatch(/answered +replication +done/);
    await expectEqual(source, target, ['answered']);
  });

  test('is undone by resolve abort, and has failed', async () => {
    const command = await prepare('given-up');
    await source.psql('given-up', `${pickyAbout(target)} CREATE INDEX ON held (picky(id))`);
    expect(await run(command, uris())).toMatchObject({ code: 1 });
    expect(await run(['resolve', 'abort'], uris())).toMatchObject({
      code: 1,
      stdout: expect.stringMatching(/given-up +replication +failed.*Aborted by an operator.*: failed$/ms) as string,
    });
    expect(await leftovers(source, target, ['given-up'])).toEqual([]);
  });
});

describe('with a Temporal server of somebody', { timeout: 240_000 }, () => {
  test('pg carries a migration out in its own process, passwords and all', async () => {
    const command = await prepare('configured');
    const env = { ...uris(), TEMPORAL_ADDRESS: inject('temporalAddress') };
    const ended = await run([...command, '--stop-replication'], env);
    expect(ended, ended.stderr).toMatchObject({ code: 0 });
    expect(ended.stderr).not.toContain('Web UI');
    await expectEqual(source, target, ['configured']);
  });

  test('--detach leaves it to the workers there, and takes no password along', async () => {
    const command = await prepare('detached');
    const taskQueue = `detached-${process.pid}`;
    const env = { TEMPORAL_ADDRESS: inject('temporalAddress'), PGTRANSIT_TASK_QUEUE: taskQueue };
    const flags = ['-s', source.uri('postgres'), '-t', target.uri('postgres'), '--detach', '--stop-replication'];
    expect(await run([...command, ...flags], env)).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('A connection string holds a password') as string,
    });
    const started = await run([...command, '--detach', '--stop-replication'], { ...env, ...uris() });
    expect(started).toMatchObject({ code: 0, stderr: expect.stringContaining(taskQueue) as string });
    const id = /pgtransit-[0-9a-f]{12}/.exec(started.stderr)?.[0] ?? '';
    const worker = pgtransit(['worker'], { HOME: home, ...env, ...uris() });
    running.push(worker);
    const watched = await run(['watch', id], env);
    expect(watched, watched.stderr).toMatchObject({
      code: 0,
      stdout: expect.stringContaining(`${id}: done`) as string,
    });
    await expectEqual(source, target, ['detached']);
  });

  test('rehearse changes nothing; stop and rollback follow the migration until the order is carried out, and say what can be done then', async () => {
    await prepare('there-and-back');
    const taskQueue = `back-${process.pid}`;
    const env = { TEMPORAL_ADDRESS: inject('temporalAddress'), PGTRANSIT_TASK_QUEUE: taskQueue };
    const worker = pgtransit(['worker'], { HOME: home, ...env, ...uris() });
    running.push(worker);
    const connection = await Connection.connect({ address: inject('temporalAddress') });
    const handle = await new Client({ connection }).workflow.start('migrateCluster', {
      ...{ taskQueue, workflowId: taskQueue },
      args: [{ databases: { include: ['there-and-back'] }, stop: { fence: 'read-only' }, reverse: {} }],
    });
    try {
      await eventually(
        () => handle.query<ClusterProgress>('progress'),
        ({ phase }) => phase === 'streaming',
        60_000,
      );
      const rehearsed = await run(['rehearse', taskQueue], env);
      expect(rehearsed, rehearsed.stderr).toMatchObject({ code: 0 });
      expect(rehearsed.stdout).toMatch(
        /^there-and-back: writers would be kept out for about \d+\.\d s\nSTEP +TIME\nwaitForGate +\d+ ms\n/,
      );
      expect(rehearsed.stdout).toMatch(/^walAfterMark +\d+ ms +estimated$/m);
      expect((await run(['rehearse', taskQueue, '--databases', 'nosuch'], env)).stderr).toContain(
        'has no database "nosuch"',
      );
      const stopped = await run(['stop', taskQueue], env);
      expect(stopped, stopped.stderr).toMatchObject({ code: 0 });
      expect(stopped.stdout).toMatch(/^there-and-back: reversing.*The target serves: lead the clients there\./s);
      const back = await run(['rollback', taskQueue], env);
      expect(back, back.stderr).toMatchObject({ code: 0 });
      expect(back.stdout).toMatch(/there-and-back +replication +rolled-back/);
      expect(await source.psql('there-and-back', 'CREATE TABLE writable ()')).toBe('');
    } finally {
      await handle.cancel().catch(() => undefined);
      await connection.close();
    }
  });
});
