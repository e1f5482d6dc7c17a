import type { ChildProcess } from 'node:child_process';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { Connection } from '@temporalio/client';
import proto from '@temporalio/proto';
import { SEARCH_ATTRIBUTE, WORKFLOW } from '../contract.ts';
import { LIMITS } from '../domain/limits.ts';

export const NAMESPACE = 'default';

const RETENTION = proto.google.protobuf.Duration.fromObject({ seconds: LIMITS.retentionDays * 24 * 3600 });

export interface DevServer {
  child: ChildProcess;
  address: string;
}

/** `temporal version 1.9.1 (Server 1.32.0, …)`, without what is in parentheses. */
export async function cliVersion(cli: string): Promise<string> {
  const { stdout } = await promisify(execFile)(cli, ['--version']);
  return stdout.split('(')[0]?.trim() ?? '';
}

/**
 * `temporal server start-dev` on loopback, with its workflows in a file of the state directory. Answers when the
 * namespace can be used, with finished workflows kept for months instead of a day.
 * @throws Error with the end of the server's log when it does not start
 */
export async function startDevServer(
  cli: string,
  stateDir: string,
  { port, uiPort }: { port: number; uiPort: number },
): Promise<DevServer> {
  const address = `127.0.0.1:${port}`;
  const logFile = join(stateDir, 'temporal.log');
  if ((statSync(logFile, { throwIfNoEntry: false })?.size ?? 0) > LIMITS.serverLogBytes) rmSync(logFile);
  const log = openSync(logFile, 'a', 0o600);
  const child = spawn(
    cli,
    [
      ...['server', 'start-dev', '--ip', '127.0.0.1', '--port', String(port), '--ui-port', String(uiPort)],
      ...['--db-filename', join(stateDir, 'temporal.db'), '--log-level', 'warn'],
      ...Object.values(SEARCH_ATTRIBUTE).flatMap((name) => ['--search-attribute', `${name}=Keyword`]),
    ],
    { stdio: ['ignore', log, log] },
  );
  closeSync(log);
  try {
    await Promise.race([untilReady(address), untilEnd(child)]);
    return { child, address };
  } catch (error) {
    child.kill('SIGKILL');
    const said = readFileSync(logFile, 'utf8').trim().split('\n').slice(-3).join(' ').slice(-1000);
    throw new Error(`The Temporal server did not start on ${address}. The end of ${logFile}: ${said}`, {
      cause: error,
    });
  }
}

async function untilEnd(child: ChildProcess): Promise<never> {
  await once(child, 'exit');
  throw new Error('It ended.');
}

async function untilReady(address: string): Promise<void> {
  for (const giveUpAt = Date.now() + LIMITS.serverStartMs; ; await delay(LIMITS.pollMs / 5)) {
    try {
      await withConnection(address, async (connection) => {
        await connection.workflowService.describeNamespace({ namespace: NAMESPACE });
        await connection.workflowService.updateNamespace({
          namespace: NAMESPACE,
          config: { workflowExecutionRetentionTtl: RETENTION },
        });
      });
      return;
    } catch (error) {
      if (Date.now() > giveUpAt) throw error;
    }
  }
}

/** Workflow ids of the migrations that have not ended. */
export async function openMigrations(address: string): Promise<string[]> {
  return withConnection(address, async (connection) => {
    const { executions } = await connection.workflowService.listWorkflowExecutions({
      namespace: NAMESPACE,
      query: `ExecutionStatus = 'Running' AND WorkflowType = '${WORKFLOW.migrateCluster}'`,
    });
    return executions.map(({ execution }) => execution?.workflowId ?? '').filter((id) => id !== '');
  });
}

/** Each a connection of its own: gRPC waits longer and longer before it tries a refused one again. */
async function withConnection<T>(address: string, work: (connection: Connection) => Promise<T>): Promise<T> {
  const connection = await Connection.connect({ address, connectTimeout: 1000 });
  try {
    return await work(connection);
  } finally {
    await connection.close();
  }
}
