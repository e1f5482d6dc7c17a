import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import net from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { afterEach, describe, expect, inject, it, onTestFinished } from 'vitest';
import { temporalCliPath } from '../../src/temporal/cli-path.ts';
import type { RunningCommand } from './command.ts';
import { eventually } from '../support/workflow-harness.ts';
import { pgtransit } from './command.ts';

const address = inject('temporalAddress');
const running: RunningCommand[] = [];

afterEach(async () => {
  const ending = running.splice(0);
  ending.forEach((command) => command.kill('SIGKILL'));
  await Promise.all(ending.map((command) => command.exitCode));
});

async function temporal(...args: string[]): Promise<string> {
  const { stdout } = await promisify(execFile)(temporalCliPath(), [...args, '--address', address]);
  return stdout;
}

/** The namespace of the test run has the search attributes; a new one has none. */
async function newNamespace(): Promise<string> {
  const namespace = `cli-${randomBytes(4).toString('hex')}`;
  await temporal('operator', 'namespace', 'create', '--namespace', namespace);
  // The server's cache of namespaces learns of it a moment later.
  while (
    !(await attributesOf(namespace).then(
      () => true,
      () => false,
    ))
  )
    await delay(100);
  return namespace;
}

const attributesOf = (namespace: string): Promise<string> =>
  temporal('operator', 'search-attribute', 'list', '--namespace', namespace);

function startWorker(namespace: string, env: NodeJS.ProcessEnv = {}, ...args: string[]): RunningCommand {
  const command = pgtransit(['worker', ...args], { TEMPORAL_ADDRESS: address, TEMPORAL_NAMESPACE: namespace, ...env });
  running.push(command);
  return command;
}

const READY = /^ready: /m;

describe('pgtransit worker with a deployment version', () => {
  const version = (buildId: string) => ({ TEMPORAL_DEPLOYMENT_NAME: 'pgtransit', TEMPORAL_WORKER_BUILD_ID: buildId });

  it(
    'serves once its version is current, and a running migration goes on with the next one',
    { timeout: 150_000 },
    async () => {
      const namespace = await newNamespace();
      const here = ['--namespace', namespace];
      // Servers that never answer keep the migration where it is, for as long as the versions take.
      const silent = net.createServer(() => undefined).listen(0, '127.0.0.1');
      onTestFinished(() => void silent.close());
      await once(silent, 'listening');
      const uri = `postgresql://nobody@127.0.0.1:${(silent.address() as AddressInfo).port}/postgres?connect_timeout=300`;
      const nobody = { SOURCE_SERVICE_URI: uri, TARGET_SERVICE_URI: uri };
      const current = (buildId: string): Promise<unknown> =>
        eventually(
          () =>
            temporal(
              'worker',
              'deployment',
              'set-current-version',
              ...here,
              '--deployment-name',
              'pgtransit',
              '--build-id',
              buildId,
              '--yes',
            ).catch(String),
          (said) => !/error/i.test(said),
          30_000,
        );
      const describe = async (): Promise<string> =>
        temporal('workflow', 'describe', '-w', 'versioned', '-o', 'json', ...here);

      const first = startWorker(namespace, { ...version('1'), ...nobody });
      await first.says(READY);
      expect(first.stdout).toMatch(/^Deployment version {2}pgtransit\.1$/m);
      await current('1');
      await temporal(
        'workflow',
        'start',
        '--task-queue',
        'pgtransit',
        '--type',
        'migrateCluster',
        '-w',
        'versioned',
        ...here,
      );
      await eventually(describe, (text) => text.includes('"inspectCluster"'), 30_000);

      const second = startWorker(namespace, { ...version('2'), ...nobody });
      await second.says(READY);
      await current('2');
      // Matching hears of the current version a moment later, and each signal makes one task.
      const signalled = async (): Promise<string> => {
        await temporal('workflow', 'signal', '-w', 'versioned', '--name', 'stopReplication', '--input', '{}', ...here);
        return describe();
      };
      const described = await eventually(signalled, (text) => /"buildId": "2"/.test(text), 60_000);
      expect(described).toMatch(/"behavior": "(VERSIONING_BEHAVIOR_AUTO_UPGRADE|AutoUpgrade)"/);
      await temporal('workflow', 'terminate', '-w', 'versioned', ...here);
      expect(await temporal('worker', 'deployment', 'describe', '--name', 'pgtransit', ...here)).toContain('2');
    },
  );

  it('is refused half a version', async () => {
    const worker = startWorker('default', { TEMPORAL_DEPLOYMENT_NAME: 'pgtransit' });
    expect(await worker.exitCode).toBe(1);
    expect(worker.stderr).toContain('Set both TEMPORAL_DEPLOYMENT_NAME and TEMPORAL_WORKER_BUILD_ID, or neither');
  });
});

describe('pgtransit worker', () => {
  it('registers the search attributes, also when two start at once, and says when both queues are served', async () => {
    const namespace = await newNamespace();
    expect(await attributesOf(namespace)).not.toContain('PgCluster');
    const workers = [startWorker(namespace), startWorker(namespace)];
    await Promise.all(workers.map((worker) => worker.says(READY)));
    for (const worker of workers) expect(worker.stdout).toMatch(/^Search attributes {3}registered/m);
    const attributes = await attributesOf(namespace);
    for (const name of ['PgCluster', 'PgDatabase', 'PgMigrationPhase', 'PgAttention'])
      expect(attributes).toMatch(new RegExp(`^\\s*${name}\\s+Keyword`, 'm'));
  });

  it('goes on without search attributes that it cannot have, and prints the command that adds them', async () => {
    const namespace = await newNamespace();
    await temporal(
      'operator',
      'search-attribute',
      'create',
      '--namespace',
      namespace,
      '--name',
      'PgCluster',
      '--type',
      'Int',
    );
    const worker = startWorker(namespace);
    await worker.says(READY);
    expect(worker.stdout).toMatch(
      /^Search attributes {3}not registered \(PgCluster is not of type Keyword\); migrations run without/m,
    );
    expect(worker.stdout).toContain(
      `temporal operator search-attribute create --namespace ${namespace} --name PgCluster`,
    );
  });

  it('says where it works and what to try, never with a password', async () => {
    const worker = startWorker(
      'default',
      {
        SOURCE_SERVICE_URI: 'postgres://admin:gehe%21m-1@old.example:5433/app',
        TARGET_SERVICE_URI: 'postgres://admin:gehe!m-2/x@new.example/app',
        PGTRANSIT_LOG_LEVEL: 'trace',
      },
      '--task-queue',
      'cli-says',
    );
    await worker.says(READY);
    worker.kill('SIGTERM');
    await worker.exitCode;
    expect(worker.stdout).toContain(`Temporal            ${address}, namespace default\n`);
    expect(worker.stdout).toContain(
      'Task queues         cli-says (workflows, short steps) and cli-says-lanes (long steps)\n',
    );
    expect(worker.stdout).toContain('SOURCE_SERVICE_URI  host old.example, port 5433, user admin\n');
    expect(worker.stdout).toMatch(/^TARGET_SERVICE_URI {2}The connection string in TARGET_SERVICE_URI is not valid: /m);
    expect(worker.stdout).toContain('temporal workflow start --task-queue cli-says --type migrateCluster');
    expect(worker.stdout + worker.stderr).not.toContain('gehe');
  });

  it('logs one JSON object a line where nobody watches', async () => {
    const worker = startWorker('default', { PGTRANSIT_LOG_LEVEL: 'debug' }, '--task-queue', 'cli-logs');
    await worker.says(READY);
    worker.kill('SIGTERM');
    await worker.exitCode;
    const lines = worker.stderr.trim().split('\n');
    expect(lines.length).toBeGreaterThan(1);
    for (const line of lines)
      expect(JSON.parse(line)).toMatchObject({ level: 'debug', msg: expect.any(String) as unknown });
  });

  it('takes the task queue from PGTRANSIT_TASK_QUEUE, and tells a health check whether both queues are polled', async () => {
    const env = { TEMPORAL_ADDRESS: address, PGTRANSIT_TASK_QUEUE: 'cli-check' };
    const before = pgtransit(['worker', '--check'], env);
    expect(await before.exitCode).toBe(1);
    expect(before.stderr).toBe('pgtransit: No worker on this host polls cli-check and cli-check-lanes.\n');
    const worker = startWorker('default', env);
    await worker.says(READY);
    const after = pgtransit(['worker', '--check'], env);
    expect([await after.exitCode, after.stderr]).toEqual([0, '']);
  });

  it.each(['SIGTERM', 'SIGINT'] as const)('ends gently on %s, with exit code 0', async (signal) => {
    const worker = startWorker('default', {}, '--task-queue', `cli-${signal}`);
    await worker.says(READY);
    worker.kill(signal);
    expect(await worker.exitCode).toBe(0);
    expect(worker.stdout).toMatch(/\nstopped\n$/);
    expect(worker.stderr).toBe('');
  });

  it('names a namespace that does not exist, and the command that makes it', async () => {
    const worker = startWorker('nowhere');
    expect(await worker.exitCode).toBe(1);
    expect(worker.stderr).toMatch(
      /^pgtransit: Temporal at .* has no namespace "nowhere"\. .*namespace create --namespace nowhere/,
    );
  });
});
