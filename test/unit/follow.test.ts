import type { Client, WorkflowHandle } from '@temporalio/client';
import { ServiceError } from '@temporalio/client';
import { WorkflowNotFoundError } from '@temporalio/common';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { follow } from '../../src/cli/follow.ts';
import { tellTroubles } from '../../src/cli/tell-troubles.ts';
import { WHOLE } from '../../src/cli/view/live.ts';
import type { ProgressOutput } from '../../src/cli/view/output.ts';
import type { ClusterProgress } from '../../src/domain/progress.ts';
import { cluster, database } from '../support/progress-fixture.ts';

beforeEach(() => void vi.useFakeTimers({ toFake: ['Date'] }));
afterEach(() => void vi.useRealTimers());

/** Waits between two rounds are real ones, so a test has few. */
const ROUNDS = 3;

interface Server {
  query: () => Promise<ClusterProgress>;
  result?: () => Promise<unknown>;
  describe?: (workflowId: string) => Promise<unknown>;
}

/** A Temporal server that answers as a test wants. */
function serverOf({ query, result = () => new Promise(() => undefined), describe }: Server) {
  const described: string[] = [];
  const getHandle = (workflowId: string) => ({
    describe: () => {
      described.push(workflowId);
      return describe?.(workflowId) ?? Promise.resolve({ raw: { pendingActivities: [] } });
    },
  });
  const client = { workflow: { getHandle }, withDeadline: (_: number, ask: () => Promise<unknown>) => ask() };
  return { client: client as unknown as Client, handle: { query, result } as unknown as WorkflowHandle, described };
}

function record() {
  const said: string[] = [];
  const output: ProgressOutput = {
    show: ({ databases }, live) =>
      said.push(`shown ${databases.length}, ${[...live.values()].flatMap(({ current }) => current).join(', ')}`),
    away: (reason) => said.push(`away: ${reason}`),
  };
  return { output, said };
}

const unavailable = () =>
  new ServiceError('Failed to query Workflow', { cause: new Error('14 UNAVAILABLE: connection refused') });

const never = new AbortController().signal;

describe('waiting for a validation', () => {
  test('says once what keeps it, also after a look that failed', async () => {
    const heartbeat = new TextEncoder().encode('{"waitingFor":"connect ECONNREFUSED."}');
    const payloads = [{ metadata: { encoding: new TextEncoder().encode('json/plain') }, data: heartbeat }];
    const over = new AbortController();
    let looks = 0;
    const server = serverOf({
      query: () => Promise.reject(new Error('a validation has no progress')),
      describe: () => {
        looks += 1;
        if (looks === 4) over.abort();
        if (looks === 1) return Promise.reject(unavailable());
        return Promise.resolve({ raw: { pendingActivities: [{ heartbeatDetails: { payloads } }] } });
      },
    });
    const said: string[] = [];
    await tellTroubles(server.client, 'validation', over.signal, (sentence) => said.push(sentence));
    expect(said).toEqual(['! Trying again for up to 30 s: connect ECONNREFUSED.']);
  });
});

describe('following a migration', () => {
  test('looks at the steps of a few databases in one round, and of the others in the next', async () => {
    const all = cluster([
      ...Array.from({ length: 20 }, (_, index) => database(`db${index}`)),
      database('flows', { phase: 'streaming' }),
      database('ended', { phase: 'done' }),
    ]);
    let rounds = 0;
    const server = serverOf({ query: () => Promise.resolve(all) });
    const settled = () => (rounds += 1) === ROUNDS;
    await follow(server.client, server.handle, { ...record(), signal: never, settled });
    expect(server.described).toHaveLength(8 * ROUNDS);
    expect(new Set(server.described)).toEqual(
      new Set(Array.from({ length: 20 }, (_, index) => `pgtransit-0123456789ab/db${index}`)),
    );
  });

  test('looks at the steps of the migration itself while it looks at the servers and makes the roles', async () => {
    const steps = [
      {
        activityId: '1',
        activityType: { name: 'migrateRoles' },
        attempt: 3,
        state: 1,
        lastFailure: { message: 'Refused.' },
      },
    ];
    const server = serverOf({
      query: () => Promise.resolve(cluster([], { phase: 'preparing' })),
      describe: () => Promise.resolve({ raw: { pendingActivities: steps } }),
    });
    let seen: unknown;
    const output: ProgressOutput = { show: (_, live) => (seen = live.get(WHOLE)?.retrying), away: () => undefined };
    await follow(server.client, server.handle, { output, signal: never, settled: () => true });
    expect(server.described).toEqual(['pgtransit-0123456789ab']);
    expect(seen).toEqual([{ step: 'migrateRoles', attempt: 3, failure: 'Refused.' }]);
  });

  test('goes on where steps cannot be read: no such workflow yet, or heartbeats that only a worker can decrypt', async () => {
    const text = (value: string) => new TextEncoder().encode(value);
    const secret = { metadata: { encoding: text('binary/encrypted') }, data: text('?') };
    const plain = { metadata: { encoding: text('json/plain') }, data: text('{"current":"public.a"}') };
    const steps = [secret, plain].map((payload) => ({ heartbeatDetails: { payloads: [payload] } }));
    const server = serverOf({
      query: () => Promise.resolve(cluster([database('there'), database('not-yet')])),
      describe: (id) =>
        id.endsWith('not-yet')
          ? Promise.reject(new WorkflowNotFoundError('gone', id, undefined))
          : Promise.resolve({ raw: { pendingActivities: steps } }),
    });
    const { output, said } = record();
    await follow(server.client, server.handle, { output, signal: never, settled: () => true });
    expect(said).toEqual(['shown 2, public.a']);
  });

  test('says after some seconds that there are no news, and why, and goes on when there are', async () => {
    let asked = 0;
    const server = serverOf({
      query: () => {
        asked += 1;
        vi.setSystemTime(Date.now() + 3_000);
        return asked < 3 ? Promise.reject(unavailable()) : Promise.resolve(cluster([database('a')]));
      },
      // The long poll for the end breaks too.
      result: () => Promise.reject(unavailable()),
    });
    const { output, said } = record();
    const settled = () => asked === 3;
    expect(await follow(server.client, server.handle, { output, signal: never, settled })).toHaveProperty('settled');
    expect(said).toEqual(['away: 14 UNAVAILABLE: connection refused', 'shown 1, ']);
  });

  test('ends with the migration, also when that cannot be asked any more', async () => {
    const server = serverOf({
      query: () => Promise.reject(unavailable()),
      result: () => Promise.resolve({ id: 'm', status: 'done', roles: [], databases: [] }),
    });
    const { output, said } = record();
    const followed = await follow(server.client, server.handle, { output, signal: never, settled: () => false });
    expect(followed).toMatchObject({ ended: { status: 'done' }, progress: null });
    expect(said).toEqual([]);
  });

  test('fails when there is no such migration', async () => {
    const gone = () => Promise.reject(new WorkflowNotFoundError('There is none.', 'm', undefined));
    const server = serverOf({ query: gone, result: gone });
    const following = follow(server.client, server.handle, { ...record(), signal: never, settled: () => false });
    await expect(following).rejects.toThrow('There is none.');
  });

  test('shows nothing after the interruption, and waits for nothing', async () => {
    const stop = new AbortController();
    const server = serverOf({
      query: () => {
        stop.abort();
        return Promise.resolve(cluster([database('a')]));
      },
    });
    const { output, said } = record();
    const options = { output, signal: stop.signal, settled: () => false };
    expect(await follow(server.client, server.handle, options)).toBe('interrupted');
    expect(said).toEqual([]);
  });
});
