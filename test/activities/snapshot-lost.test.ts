import { afterEach, describe, expect, test } from 'vitest';
import { setTimeout as delay } from 'node:timers/promises';
import { applicationName, generationName } from '../../src/contract.ts';
import { MigrationError } from '../../src/domain/failure.ts';
import { sameLsn } from '../../src/postgres/lag.ts';
import { readSlot } from '../../src/postgres/slot.ts';
import { startPostgres } from '../../lab/postgres-server.ts';
import { eventually, runActivity } from '../support/copy-fixture.ts';
import type { ReplicationFixture, ReplicationOptions } from '../support/replication-fixture.ts';
import { replicationFixture, runInBackground } from '../support/replication-fixture.ts';

const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

async function opened(options: ReplicationOptions = {}): Promise<ReplicationFixture> {
  const f = await replicationFixture({ schema: 'CREATE TABLE public.t (id int PRIMARY KEY)', ...options });
  closing.push(f.close);
  await runActivity(f.steps.openSnapshot, [f.m, 0]);
  return f;
}

const booked = (f: ReplicationFixture) =>
  f.target.one<{ pid: number; lsn: string }>(
    'SELECT holder_pid AS pid, consistent_point::text AS lsn FROM pgtransit.generation',
  );

const endHolder = async (f: ReplicationFixture): Promise<void> => {
  const { pid } = await booked(f);
  await f.source.query('SELECT pg_terminate_backend($1)', [pid]);
  await eventually(
    'the holder gone',
    async () => (await f.source.query('SELECT FROM pg_stat_activity WHERE pid = $1', [pid])).length === 0,
  );
};

/** The backend in the ledger holds, and the slot begins where its snapshot was taken. */
async function expectSound(f: ReplicationFixture): Promise<void> {
  const { pid, lsn } = await booked(f);
  const holders = await f.source.query<{ pid: number }>(
    'SELECT pid FROM pg_stat_activity WHERE application_name = $1',
    [applicationName(f.m.id, 'holder')],
  );
  expect(holders).toEqual([{ pid }]);
  expect(sameLsn((await readSlot(f.source, generationName(f.m.id, 0)))?.confirmed ?? null, lsn)).toBe(true);
}

describe('a snapshot is lost', () => {
  test('when its slot was invalidated', async () => {
    const server = await startPostgres({ major: 17, settings: { max_slot_wal_keep_size: '1MB' } });
    closing.push(server.remove);
    const f = await opened({ source: server });
    const keeping = runInBackground(f.steps.keepSnapshot, [f.m, 0]);
    for (let segment = 1; segment <= 4; segment += 1)
      await f.source.query("SELECT pg_logical_emit_message(false, 'x', 'x'), pg_switch_wal()");
    await f.source.query('CHECKPOINT');
    expect(await keeping.ended).toMatchObject({ type: 'SnapshotLost' });
  });

  test('when the source was restarted: first the connection, then the holder is missed', async () => {
    const server = await startPostgres({ major: 17 });
    closing.push(server.remove);
    const f = await opened({ source: server });
    const keeping = runInBackground(f.steps.keepSnapshot, [f.m, 0]);
    await eventually('a keep session', async () => {
      const rows = await f.source.query('SELECT FROM pg_stat_activity WHERE application_name = $1', [
        applicationName(f.m.id, 'keep'),
      ]);
      return rows.length > 0;
    });
    await server.restart();
    expect(await keeping.ended).toMatchObject({ type: 'ConnectionFailed' });
    await expect(runActivity(f.steps.keepSnapshot, [f.m, 0])).rejects.toMatchObject({ type: 'SnapshotLost' });
  });

  test('when its slot was made anew: changes since the snapshot would be missing', async () => {
    const f = await opened();
    const name = generationName(f.m.id, 0);
    await f.source.query('INSERT INTO public.t VALUES (1)');
    await f.source.query('SELECT pg_drop_replication_slot($1)', [name]);
    await f.source.query("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", [name]);
    await expect(runActivity(f.steps.keepSnapshot, [f.m, 0])).rejects.toMatchObject({
      type: 'SnapshotLost',
      message: expect.stringContaining('begins at') as string,
    });
  });
});

describe('opening once more after the holder has ended', () => {
  test('begins anew while nothing was read under the snapshot', async () => {
    const f = await opened();
    const before = await booked(f);
    await endHolder(f);
    await runActivity(f.steps.openSnapshot, [f.m, 0]);
    expect((await booked(f)).pid).not.toBe(before.pid);
    await expectSound(f);
  });

  test('is SnapshotLost when something was', async () => {
    const f = await opened();
    await runActivity(f.steps.planCopy, [f.m, 0]);
    await endHolder(f);
    await expect(runActivity(f.steps.openSnapshot, [f.m, 0])).rejects.toMatchObject({ type: 'SnapshotLost' });
  });
});

describe('two attempts at once', () => {
  test.each([0, 15, 40, 100])('%i ms apart end with one sound generation, and a failure is retried', async (ms) => {
    const f = await replicationFixture({ schema: 'CREATE TABLE public.t (id int PRIMARY KEY)' });
    closing.push(f.close);
    const first = runActivity(f.steps.openSnapshot, [f.m, 0]);
    const attempts = await Promise.allSettled([
      first,
      delay(ms).then(() => runActivity(f.steps.openSnapshot, [f.m, 0])),
    ]);
    for (const attempt of attempts)
      if (attempt.status === 'rejected')
        expect(attempt.reason, String(attempt.reason)).toSatisfy(
          (error: unknown) => error instanceof MigrationError && error.retryable,
        );
    await runActivity(f.steps.openSnapshot, [f.m, 0]);
    await expectSound(f);
  });

  test('an attempt that wakes up beside its successor does not end what that made', async () => {
    const f = await replicationFixture({ schema: 'CREATE TABLE public.t (id int PRIMARY KEY)' });
    closing.push(f.close);
    // As if it had stopped just before it clears away what it believes to be dead.
    const zombie = await f.open('source', applicationName(f.m.id, 'control'));
    await runActivity(f.steps.openSnapshot, [f.m, 0]);
    await expect(zombie.query('SELECT 1')).rejects.toThrow();
    await expectSound(f);
  });
});
