import { Context } from '@temporalio/activity';
import type { WorkflowHandle } from '@temporalio/client';
import { expect, test } from 'vitest';
import { heartbeating } from '../../activities/context.ts';
import type { Migration } from '../../src/domain/migration.ts';
import { toApplicationFailure } from '../../src/domain/application-failure.ts';
import { MigrationError } from '../../src/domain/failure.ts';
import type { ClusterProgress, ClusterReport, DatabaseProgress } from '../../src/domain/progress.ts';
import { eventually, untilCancelled, withWorkers } from '../support/workflow-harness.ts';

const progressOf = (handle: WorkflowHandle): Promise<ClusterProgress> => handle.query<ClusterProgress>('progress');
const all = (test: (database: DatabaseProgress) => boolean) => (progress: ClusterProgress) =>
  progress.databases.length > 0 && progress.databases.every(test);
const phaseIs = (phase: string) => all((database) => database.phase === phase);
const waitsFor = (word: string) => all((database) => database.waitsFor === word);
const parked = (progress: ClusterProgress) => progress.databases.some(({ answers }) => answers.length > 0);
const reportOf = async (handle: WorkflowHandle): Promise<ClusterReport> => (await handle.result()) as ClusterReport;
/** An update that is refused says why in its cause. */
const refusal = (update: Promise<unknown>): Promise<string> =>
  update.then(
    () => 'accepted',
    (error: unknown) => (error as { cause: Error }).cause.message,
  );

test('an external fence is waited for, and put up by the one who says so; nobody else is believed', async () => {
  await withWorkers({}, async ({ start, calls }) => {
    const handle = await start('migrateCluster', { stop: { fence: 'external' } });
    await eventually(() => progressOf(handle), phaseIs('streaming'));
    expect(await refusal(handle.executeUpdate('fenced', { args: [{ by: 'haproxy' }] }))).toBe(
      'No database waits for "fenced" now.',
    );
    await handle.signal('stopReplication');
    const waiting = await eventually(() => progressOf(handle), waitsFor('fenced'));
    expect(waiting.attention).toMatch(/^shop: Keep writers out of the source, then send the update fenced;/);
    expect(calls).not.toContain('mark');
    expect(await refusal(handle.executeUpdate('fenced', { args: [{}] }))).toBe(
      'fenced takes {"by": "who did it", "database": optional}.',
    );
    await handle.executeUpdate('fenced', { args: [{ by: 'haproxy' }] });
    const { databases } = await reportOf(handle);
    expect(databases[0]?.cutover).toMatchObject({ fence: 'external', fencedBy: 'haproxy', switchedBy: null });
    expect(databases[0]?.cutover?.steps.map(({ name }) => name)).toEqual([
      'waitForGate',
      'fence',
      'mark',
      'waitForDrain',
      'disableSubscriptions',
      'carryOver',
      'walAfterMark',
    ]);
    expect(calls).not.toContain('unfence');
  });
});

test('an external fence that nobody puts up before the deadline ends the stop, and one that came is theirs to lift', async () => {
  let isStuck = false;
  const waitForDrain = async () => {
    if (isStuck) await untilCancelled();
  };
  await withWorkers({ waitForDrain }, async ({ start }) => {
    const handle = await start('migrateCluster', { stop: { fence: 'external' } });
    await eventually(() => progressOf(handle), phaseIs('streaming'));
    await handle.signal('stopReplication', { deadlineSeconds: 1 });
    const first = await eventually(() => progressOf(handle), parked);
    expect(first.attention).toMatch(
      /It had come to the step "shop: wait for the update fenced"\. .* goes on\.(?! The fence)/,
    );
    expect(await refusal(handle.executeUpdate('fenced', { args: [{ by: 'haproxy' }] }))).toContain('No database waits');
    isStuck = true;
    await handle.executeUpdate('resolve', { args: [{ action: 'retry' }] });
    await handle.signal('stopReplication', { deadlineSeconds: 2 });
    await eventually(() => progressOf(handle), waitsFor('fenced'));
    await handle.executeUpdate('fenced', { args: [{ by: 'haproxy' }] });
    const second = await eventually(() => progressOf(handle), parked);
    expect(second.attention).toContain('The fence that haproxy put up is theirs to lift.');
    await handle.terminate();
  });
});

test('a stop may bring its own fence, and one that the plan has not what it needs for is refused', async () => {
  const kinds: string[] = [];
  const fence = (_m: Migration, kind: string) => Promise.resolve(void kinds.push(kind));
  await withWorkers({ fence }, async ({ start }) => {
    const handle = await start('migrateCluster');
    await eventually(() => progressOf(handle), phaseIs('streaming'));
    expect(await refusal(handle.executeUpdate('stopReplication', { args: [{ fence: 'pgbouncer' }] }))).toContain(
      'needs "stop.pgbouncer" in the plan',
    );
    await handle.executeUpdate('stopReplication', { args: [{ fence: 'lock-out' }] });
    const { databases } = await reportOf(handle);
    expect(kinds).toEqual(['lock-out']);
    expect(databases[0]?.message).toMatch(/The source still lets nobody connect\.$/);
  });
});

test('a stop after one that was put back asks for what it says, and for no more of the earlier one', async () => {
  const fenced: string[] = [];
  let isStuck = true;
  const activities = {
    fence: (m: Migration, kind: string) => Promise.resolve(void fenced.push(`${m.database} ${kind}`)),
    walAfterMark: () => Promise.resolve({ bytes: isStuck ? 120 : 0, tables: [] }),
  };
  await withWorkers(
    activities,
    async ({ start }) => {
      const handle = await start('migrateCluster', { stop: { fence: 'read-only' }, parallelism: { databases: 2 } });
      await eventually(() => progressOf(handle), phaseIs('streaming'));
      await handle.signal('stopReplication', { databases: ['a'], fence: 'lock-out' });
      await eventually(() => progressOf(handle), parked);
      await handle.executeUpdate('resolve', { args: [{ action: 'retry' }] });
      isStuck = false;
      await handle.signal('stopReplication', { databases: ['b'] });
      const phasesOf = ({ databases }: ClusterProgress) => databases.map(({ phase }) => phase).join();
      await eventually(
        () => progressOf(handle),
        (progress) => phasesOf(progress) === 'streaming,done',
      );
      await handle.signal('stopReplication');
      expect((await reportOf(handle)).databases.map(({ status }) => status)).toEqual(['done', 'done']);
      expect(fenced).toEqual(['a lock-out', 'b read-only', 'a read-only']);
    },
    ['a', 'b'],
  );
});

test('a gate that stays shut for as long as the deadline ends the stop before any fence, and says what it waited for', async () => {
  const asked: (number | undefined)[] = [];
  const waitForGate = async () => {
    const context = Context.current();
    asked.push(context.info.attempt);
    if (asked.length > 1) return;
    await heartbeating(
      () => ({ waitingFor: "the end of the prepared transaction 'x'" }),
      () => context.cancelled,
    );
  };
  await withWorkers({ waitForGate }, async ({ start, calls }) => {
    const handle = await start('migrateCluster', { stop: { fence: 'read-only' } });
    await eventually(() => progressOf(handle), phaseIs('streaming'));
    await handle.signal('stopReplication', { deadlineSeconds: 1 });
    const { attention } = await eventually(() => progressOf(handle), parked);
    expect(attention).toContain(
      "The cutover did not begin within 1 s: it waited for the end of the prepared transaction 'x'. The cutover was put back",
    );
    expect(calls).not.toContain('fence');
    await handle.executeUpdate('resolve', { args: [{ action: 'retry' }] });
    await handle.signal('stopReplication');
    expect((await reportOf(handle)).databases[0]).toMatchObject({ status: 'done' });
  });
});

test('rows that differ because somebody writes behind the fence are told as what they are', async () => {
  const verifyFenced = () =>
    Promise.reject(toApplicationFailure(new MigrationError('RowsDiffer', 'These tables differ behind the fence: x.')));
  const walAfterMark = () => Promise.resolve({ bytes: 120, tables: ['public.orders'] });
  await withWorkers({ verifyFenced, walAfterMark }, async ({ start }) => {
    const handle = await start('migrateCluster', { stop: { fence: 'read-only' }, verify: 'full' });
    await eventually(() => progressOf(handle), phaseIs('streaming'));
    await handle.signal('stopReplication');
    const { attention } = await eventually(() => progressOf(handle), parked);
    expect(attention).toContain('Somebody wrote 120 bytes to database "shop" on the source behind the fence');
    await handle.terminate();
  });
});

test('clients that PgBouncer holds go on when somebody has led it to the target, which the report records', async () => {
  await withWorkers({}, async ({ start, calls }) => {
    const handle = await start('migrateCluster', { stop: { fence: 'pgbouncer', pgbouncer: 'env:PGBOUNCER' } });
    await eventually(() => progressOf(handle), phaseIs('streaming'));
    await handle.signal('stopReplication');
    const waiting = await eventually(() => progressOf(handle), waitsFor('switched'));
    expect(waiting.attention).toContain('PgBouncer holds them: change its configuration and RELOAD it;');
    expect(calls).toContain('dropReplication');
    expect(calls).not.toContain('resumeClients');
    await handle.executeUpdate('switched', { args: [{ by: 'ann', database: 'shop' }] });
    const { databases } = await reportOf(handle);
    expect(databases[0]?.cutover).toMatchObject({ fence: 'pgbouncer', switchedBy: 'ann' });
    expect(Date.parse(databases[0]?.cutover?.switchedAt ?? '')).toBeGreaterThan(0);
    expect(calls.indexOf('resumeClients')).toBeLessThan(calls.indexOf('finish'));
  });
});

test('what is written behind a fence is a failure that puts the cutover back; without a fence it is reported', async () => {
  const walAfterMark = () => Promise.resolve({ bytes: 120, tables: ['public.orders'] });
  await withWorkers({ walAfterMark }, async ({ start, calls }) => {
    const handle = await start('migrateCluster', { stop: { fence: 'read-only' } });
    await eventually(() => progressOf(handle), phaseIs('streaming'));
    await handle.signal('stopReplication');
    const parked = await eventually(
      () => progressOf(handle),
      (p) => p.attention !== null,
    );
    expect(parked.attention).toContain(
      'Somebody wrote 120 bytes to database "shop" on the source behind the fence, to public.orders. The cutover was put back',
    );
    expect(calls.slice(-2)).toEqual(['enableSubscriptions', 'unfence']);
    await handle.executeUpdate('resolve', { args: [{ action: 'retry' }] });
    await handle.signal('stopReplication', { fence: 'none' });
    expect((await reportOf(handle)).databases[0]).toMatchObject({ status: 'done', walAfterMarkBytes: 120 });
  });
});

test('verify "full" compares behind the fence for a part of the deadline, and says what it has compared', async () => {
  const given: number[] = [];
  const ends: boolean[] = [];
  const verifyFenced = (_m: Migration, seconds: number, ended: boolean) => {
    given.push(seconds);
    ends.push(ended);
    return Promise.resolve({ tables: 1, unchanged: 1, ofTables: 2, bytes: 500 });
  };
  const plan = { verify: 'full', stop: { fence: 'read-only', deadlineSeconds: 100 } };
  await withWorkers({ verifyFenced }, async ({ start }) => {
    const handle = await start('migrateCluster', plan);
    await eventually(() => progressOf(handle), phaseIs('streaming'));
    await handle.signal('stopReplication');
    const { databases } = await reportOf(handle);
    expect(databases[0]?.cutover?.verified).toEqual({ tables: 1, unchanged: 1, ofTables: 2, bytes: 500 });
    const order = databases[0]?.cutover?.steps.map(({ name }) => name) ?? [];
    expect(order.indexOf('verifyFenced')).toBeLessThan(order.indexOf('walAfterMark'));
    expect(databases[0]?.message).toContain(
      '1 of 2 tables (500 B) were compared, 1 of them while they streamed, and neither side has written to those since.',
    );
    expect(ends).toEqual([true]);
    expect(given[0]).toBeGreaterThan(20);
    expect(given[0]).toBeLessThanOrEqual(80);
  });
  await withWorkers({ verifyFenced }, async ({ start }) => {
    const handle = await start('migrateCluster', plan);
    await eventually(() => progressOf(handle), phaseIs('streaming'));
    await handle.signal('stopReplication', { fence: 'none' });
    const { databases } = await reportOf(handle);
    expect(databases[0]?.cutover?.verified).toBeNull();
    expect(databases[0]?.warnings.join()).toContain('Nothing was compared at the cutover');
    expect(given).toHaveLength(1);
  });
});

test('verify "full" compares while it streams, and a difference parks the migration, which goes on to stream', async () => {
  let isMended = false;
  const verifyStreaming = (): Promise<void> =>
    isMended
      ? untilCancelled()
      : Promise.reject(
          toApplicationFailure(new MigrationError('RowsDiffer', 'Table public.t differs while it streams.')),
        );
  await withWorkers({ verifyStreaming }, async ({ start, calls }) => {
    const handle = await start('migrateCluster', { verify: 'full' });
    const parked = await eventually(
      () => progressOf(handle),
      (p) => p.attention !== null,
    );
    expect(parked).toMatchObject({ phase: 'streaming', databases: [{ answers: ['retry', 'abort'] }] });
    expect(parked.attention).toContain('compare the rows while they stream: Table public.t differs');
    isMended = true;
    await handle.executeUpdate('resolve', { args: [{ action: 'retry' }] });
    await eventually(
      () => Promise.resolve(calls.filter((name) => name === 'verifyStreaming')),
      (looks) => looks.length === 2,
    );
    expect(calls.filter((name) => name === 'watchReplication')).toHaveLength(1);
    await handle.signal('stopReplication');
    expect((await reportOf(handle)).status).toBe('done');
  });
  await withWorkers({ verifyStreaming }, async ({ start, calls }) => {
    const handle = await start('migrateCluster');
    await eventually(() => progressOf(handle), phaseIs('streaming'));
    await handle.signal('stopReplication');
    await reportOf(handle);
    expect(calls).not.toContain('verifyStreaming');
  });
});

test('what differs between the schemas is in the report, what somebody has dropped on the target ends the stop', async () => {
  let isMended = false;
  const compareSchemas = () =>
    isMended
      ? Promise.resolve({ differences: ['Only on the source: VIEW public.new.'] })
      : Promise.reject(toApplicationFailure(new MigrationError('NotComplete', 'The target lacks TRIGGER public.t.')));
  await withWorkers({ compareSchemas }, async ({ start, calls }) => {
    const handle = await start('migrateCluster', { stop: { fence: 'read-only' } });
    await eventually(() => progressOf(handle), phaseIs('streaming'));
    await handle.signal('stopReplication');
    const parked = await eventually(
      () => progressOf(handle),
      (p) => p.attention !== null,
    );
    expect(parked.attention).toContain('The target lacks TRIGGER public.t.');
    expect(calls).not.toContain('fence');
    isMended = true;
    await handle.executeUpdate('resolve', { args: [{ action: 'retry' }] });
    await handle.signal('stopReplication');
    expect((await reportOf(handle)).databases[0]?.warnings).toEqual([
      'The schemas differ at the cutover. Only on the source: VIEW public.new.',
    ]);
  });
  const blind = () => Promise.reject(toApplicationFailure(new MigrationError('ServerError', 'No pg_dump.')));
  await withWorkers({ compareSchemas: blind }, async ({ start }) => {
    const handle = await start('migrateCluster');
    await eventually(() => progressOf(handle), phaseIs('streaming'));
    await handle.signal('stopReplication');
    expect((await reportOf(handle)).databases[0]?.warnings.join()).toContain('The schemas were not compared');
  });
});

test('a stop waits for its time while changes go on, and a later one without a time is done at once', async () => {
  await withWorkers({}, async ({ start, calls }) => {
    const handle = await start('migrateCluster');
    await eventually(() => progressOf(handle), phaseIs('streaming'));
    expect(await refusal(handle.executeUpdate('stopReplication', { args: [{ notBefore: 'tonight' }] }))).toContain(
      'must be a time with its offset from UTC',
    );
    const notBefore = '2999-01-01T02:00:00Z';
    await handle.executeUpdate('stopReplication', { args: [{ notBefore, reason: 'cutover' }] });
    await eventually(
      () => progressOf(handle),
      all(({ message }) => message.includes(notBefore)),
    );
    expect(calls).not.toContain('waitForGate');
    await handle.executeUpdate('stopReplication', { args: [{ notBefore: new Date(Date.now() + 1500).toISOString() }] });
    const { databases } = await reportOf(handle);
    expect(databases[0]?.status).toBe('done');
  });
});

test('together: no fence goes up before all are ready, and no target is opened before all are drained', async () => {
  const order: string[] = [];
  let drainB: () => void;
  const bDrains = new Promise<void>((resolve) => (drainB = resolve));
  const noted = (name: string) => (m: Migration) => Promise.resolve(void order.push(`${m.database} ${name}`));
  const activities = {
    waitForGate: noted('gate'),
    fence: noted('fence'),
    waitForDrain: async (m: Migration) => {
      if (m.database === 'b') await bDrains;
    },
    dropReplication: noted('open'),
  };
  await withWorkers(
    activities,
    async ({ start }) => {
      const handle = await start('migrateCluster', { stop: { fence: 'read-only' }, parallelism: { databases: 3 } });
      await eventually(() => progressOf(handle), phaseIs('streaming'));
      await handle.executeUpdate('stopReplication', { args: [{ databases: ['a', 'b'], together: true }] });
      await eventually(
        () => Promise.resolve(order),
        (done) => done.includes('a fence') && done.includes('b fence'),
      );
      const waiting = (progress: ClusterProgress) =>
        progress.databases.some(({ database, message }) => database === 'a' && message.startsWith('Is drained'));
      await eventually(() => progressOf(handle), waiting);
      expect(order).not.toContain('a open');
      expect(await refusal(handle.executeUpdate('stopReplication', { args: [{ together: true }] }))).toBe(
        'Databases are being cut over together already.',
      );
      drainB();
      await eventually(
        () => progressOf(handle),
        (p) => p.databases.filter(({ phase }) => phase === 'done').length === 2,
      );
      const firstFence = Math.min(order.indexOf('a fence'), order.indexOf('b fence'));
      expect(order.slice(0, firstFence).sort()).toEqual(['a gate', 'b gate']);
      await handle.signal('stopReplication');
      expect((await reportOf(handle)).databases.map(({ status }) => status)).toEqual(['done', 'done', 'done']);
    },
    ['a', 'b', 'c'],
  );
});

test('together: one that fails puts all back; only that one asks, and all can be tried again', async () => {
  let broken = true;
  const undone: string[] = [];
  const activities = {
    carryOver: (m: Migration) =>
      broken && m.database === 'b'
        ? Promise.reject(toApplicationFailure(new MigrationError('ServerError', 'Sequence public.s is gone.')))
        : Promise.resolve({ sequences: 1, largeObjects: 0, unloggedTables: 0 }),
    unfence: (m: Migration) => Promise.resolve(void undone.push(m.database)),
  };
  await withWorkers(
    activities,
    async ({ start, calls }) => {
      const handle = await start('migrateCluster', { stop: { fence: 'read-only' } });
      await eventually(() => progressOf(handle), phaseIs('streaming'));
      await handle.executeUpdate('stopReplication', { args: [{ together: true }] });
      const parked = await eventually(
        () => progressOf(handle),
        (p) => p.attention !== null && undone.length === 2 && phaseIs('streaming')(p),
      );
      expect(parked.attention).toMatch(/^b: cut over: Sequence public\.s is gone\. The cutover was put back/);
      expect(calls).not.toContain('dropReplication');
      broken = false;
      await handle.executeUpdate('resolve', { args: [{ action: 'retry' }] });
      await eventually(
        () => progressOf(handle),
        (p) => p.attention === null,
      );
      await handle.executeUpdate('stopReplication', { args: [{ together: true }] });
      expect((await reportOf(handle)).databases.map(({ status }) => status)).toEqual(['done', 'done']);
    },
    ['a', 'b'],
  );
});
