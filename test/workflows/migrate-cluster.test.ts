import type { WorkflowHandle } from '@temporalio/client';
import { WorkflowFailedError } from '@temporalio/client';
import { describe, expect, test } from 'vitest';
import { readFailure, toApplicationFailure } from '../../src/domain/application-failure.ts';
import { MigrationError } from '../../src/domain/failure.ts';
import type { FailureType } from '../../src/domain/failure.ts';
import { LIMITS } from '../../src/domain/limits.ts';
import type { ClusterProgress, ClusterReport, DatabaseProgress } from '../../src/domain/progress.ts';
import { eventually, untilCancelled, withWorkers } from '../support/workflow-harness.ts';

const progressOf = (handle: WorkflowHandle): Promise<ClusterProgress> => handle.query<ClusterProgress>('progress');
const phaseIs = (phase: string) => (progress: ClusterProgress) =>
  progress.databases.length > 0 && progress.databases.every((d) => d.phase === phase);
const failure = (type: FailureType, message: string) => toApplicationFailure(new MigrationError(type, message));
const fails = (type: FailureType, message: string) => () => Promise.reject(failure(type, message));

/** The failure that a workflow ended with. */
async function failureOf(handle: WorkflowHandle): Promise<ReturnType<typeof readFailure> & { all: unknown[] }> {
  try {
    await handle.result();
  } catch (error) {
    if (!(error instanceof WorkflowFailedError)) throw error;
    const cause = error.cause as Error & { details?: unknown[] };
    return { ...readFailure(cause), all: cause.details ?? [] };
  }
  throw new Error('The workflow was expected to fail, but it completed.');
}

describe('migrateCluster', () => {
  test('streams until it is told to stop, then carries the sequences over after the subscriptions are disabled', async () => {
    await withWorkers({}, async ({ start, calls }) => {
      const handle = await start('migrateCluster');
      await eventually(() => progressOf(handle), phaseIs('streaming'));
      expect(calls).not.toContain('mark');
      await handle.signal('stopReplication', { reason: 'cutover' });
      const report = (await handle.result()) as ClusterReport;
      expect(report.status).toBe('done');
      expect(report.roles).toEqual([{ role: 'app', status: 'created', placeholder: false, message: 'role created' }]);
      expect(report.databases[0]).toMatchObject({ database: 'shop', method: 'replication', status: 'done', rows: 10 });
      const phases = [
        'preparing',
        'copying',
        'indexing',
        'subscribing',
        'catching-up',
        'streaming',
        'stopping',
        'finishing',
      ];
      expect(Object.keys(report.databases[0]?.seconds ?? {})).toEqual(phases);
      const order = [
        'createDatabase',
        'openSnapshot',
        'copySchema',
        'planCopy',
        'sealCopy',
        'restoreConstraints',
        'createSubscription',
      ];
      const stop = [
        'waitForGate',
        'mark',
        'waitForDrain',
        'disableSubscriptions',
        'carryOver',
        'dropReplication',
        'finish',
      ];
      const places = [...order, ...stop].map((name) => calls.indexOf(name));
      expect(places).toEqual([...places].sort((a, b) => a - b));
      expect(places).not.toContain(-1);
      expect(calls).not.toContain('undo');
    });
  });

  test('says that all rows are there once they are, whatever was measured before', async () => {
    let build: () => void = () => undefined;
    const built = new Promise<void>((resolve) => (build = resolve));
    const buildIndexes = () => built.then(() => ({ tables: 1, rows: 0, bytes: 0, current: null }));
    await withWorkers({ buildIndexes }, async ({ start }) => {
      const handle = await start('migrateCluster', { stop: { when: 'caught-up' } });
      const { databases } = await eventually(
        () => progressOf(handle),
        (progress) => progress.databases[0]?.phase === 'indexing',
      );
      build();
      const [tables, bytes] = [2, 1000].map((total) => ({ copied: total, total }));
      expect(databases).toMatchObject([{ tables, bytes }]);
      expect(((await handle.result()) as ClusterReport).status).toBe('done');
    });
  });

  test('says while it streams what a cutover needs, and of the whole cluster what is missing', async () => {
    const lag = { name: 'lag', state: 'ok', detail: 'None.', next: null } as const;
    const errors = { name: 'apply-errors', state: 'problem', detail: '3 errors.', next: 'Mend `public.t`.' } as const;
    const readiness = () => Promise.resolve({ conditions: [lag, errors], sample: null });
    await withWorkers({ readiness }, async ({ start, client, workflowId }) => {
      const handle = await start('migrateCluster');
      const child = client.workflow.getHandle(`${workflowId}/shop`);
      const parent = await eventually(
        () => progressOf(handle),
        (progress) => progress.databases[0]?.readiness?.length === 1,
      );
      expect(parent.databases[0]?.readiness).toEqual([errors]);
      expect((await child.query<DatabaseProgress>('progress')).readiness).toEqual([lag, errors]);
      expect(await child.executeUpdate('rehearse')).toEqual({
        steps: [{ name: 'waitForDrain', ms: 30, estimated: false }],
        expectedDowntimeMs: 30,
      });
      await handle.signal('stopReplication');
      expect(((await handle.result()) as ClusterReport).status).toBe('done');
    });
  });

  test('needs no input, and an empty object is the same', async () => {
    await withWorkers(
      {
        inspectDatabase: ({ database }) =>
          Promise.resolve({ database, method: 'dump', reason: '', tables: 0, bytes: 0, findings: [] }),
      },
      async ({ start }) => {
        const report = (await (await start('migrateCluster')).result()) as ClusterReport;
        expect(report.databases[0]?.method).toBe('dump');
      },
    );
  });

  test('refuses an unknown field, a wrong type and a password, each with a sentence, before any activity runs', async () => {
    await withWorkers({}, async ({ client, taskQueue, workflowId, calls }) => {
      const refusal = async (n: number, input: unknown) =>
        failureOf(
          await client.workflow.start('migrateCluster', { taskQueue, workflowId: `${workflowId}-${n}`, args: [input] }),
        );
      const unknown = await refusal(1, { sauce: 'x' });
      expect(unknown).toMatchObject({ type: 'InvalidPlan' });
      expect(unknown.message).toContain('The plan has no field "sauce".');
      expect((await refusal(2, { parallelism: { copy: 'four' } })).message).toContain(
        '"parallelism.copy" must be number',
      );
      expect((await refusal(3, 'text')).message).toContain('must be one JSON object');
      const secret = await refusal(4, { source: 'postgres://u:hush@host/db' });
      expect(secret.message).toContain('holds a password');
      expect(secret.message).not.toContain('hush');
      expect(calls).toEqual([]);
    });
  });

  test('fails with every finding, and changes nothing, when one blocks', async () => {
    const finding = (object: string) =>
      ({
        code: 'no-replica-identity',
        severity: 'error',
        server: 'source',
        database: 'shop',
        object,
        message: 'It has no key.',
        remedy: 'ALTER TABLE …',
      }) as const;
    const inspectDatabase = ({ database }: { database: string }) =>
      Promise.resolve({
        database,
        method: 'replication' as const,
        reason: '',
        tables: 1,
        bytes: 1,
        findings: [finding('public.a'), finding('public.b')],
      });
    await withWorkers({ inspectDatabase }, async ({ start, calls }) => {
      const handle = await start('migrateCluster');
      const { type, message } = await failureOf(handle);
      expect(type).toBe('ValidationFailed');
      expect(message.split('\n')[0]).toBe('2 findings are in the way, and nothing was changed.');
      expect(message).toContain('public.a');
      expect(message).toContain('public.b');
      expect(calls).not.toContain('createDatabase');
      expect((await progressOf(handle)).phase).toBe('failed');
    });
  });

  test('validateCluster answers with the findings and changes nothing', async () => {
    await withWorkers({}, async ({ start, calls }) => {
      const result = (await (await start('validateCluster')).result()) as { ok: boolean };
      expect(result).toMatchObject({
        ok: true,
        findings: [],
        databases: [{ database: 'shop', method: 'replication' }],
      });
      expect([...new Set(calls)]).toEqual(['inspectCluster', 'inspectDatabase']);
    });
  });

  test('a stop that comes before the first database is known is kept, and a second one changes nothing', async () => {
    let validated = (): void => undefined;
    const held = new Promise<void>((resolve) => (validated = resolve));
    const inspectDatabase = async ({ database }: { database: string }) => {
      await held;
      return { database, method: 'replication' as const, reason: '', tables: 1, bytes: 1, findings: [] };
    };
    await withWorkers({ inspectDatabase }, async ({ start, calls }) => {
      const handle = await start('migrateCluster');
      await handle.signal('stopReplication', { reason: 'early' });
      await handle.signal('stopReplication', { reason: 'twice' });
      validated();
      const report = (await handle.result()) as ClusterReport;
      expect(report.status).toBe('done');
      expect(calls.filter((name) => name === 'mark')).toHaveLength(1);
    });
  });

  test('a stop that names one database leaves the other streaming', async () => {
    await withWorkers(
      {},
      async ({ start }) => {
        const handle = await start('migrateCluster');
        await eventually(() => progressOf(handle), phaseIs('streaming'));
        const phases = await handle.executeUpdate('stopReplication', { args: [{ databases: ['b'] }] });
        expect(Object.keys(phases as object)).toEqual(['a', 'b']);
        await eventually(
          () => progressOf(handle),
          (p) => p.databases.find((d) => d.database === 'b')?.phase === 'done',
        );
        expect((await progressOf(handle)).databases.find((d) => d.database === 'a')?.phase).toBe('streaming');
        await handle.signal('stopReplication');
        expect(((await handle.result()) as ClusterReport).databases).toHaveLength(2);
      },
      ['a', 'b'],
    );
  });

  test('refuses a stop for a database that it does not have, by the update', async () => {
    await withWorkers({}, async ({ start }) => {
      const handle = await start('migrateCluster');
      await eventually(() => progressOf(handle), phaseIs('streaming'));
      await expect(handle.executeUpdate('stopReplication', { args: [{ databases: ['nope'] }] })).rejects.toMatchObject({
        cause: { message: 'This migration has no database "nope".' },
      });
      await handle.signal('stopReplication');
      await handle.result();
    });
  });

  test('a signal after the end is refused by Temporal with "already completed"', async () => {
    await withWorkers({}, async ({ start }) => {
      const handle = await start('migrateCluster', { stop: { when: 'caught-up' } });
      await handle.result();
      await expect(handle.signal('stopReplication')).rejects.toThrow(/already completed/);
    });
  });

  describe('a database that a server does not let us into', () => {
    const inspectDatabase = ({ database }: { database: string }) => {
      const message = 'pg_hba.conf rejects the connection.';
      const refusal = { code: 'database-unreachable', severity: 'error', server: 'source', database } as const;
      const findings = database === 'closed' ? [{ ...refusal, object: null, message, remedy: null }] : [];
      return Promise.resolve({ database, method: 'dump' as const, reason: '', tables: 1, bytes: 1, findings });
    };

    test('fails alone, and the others are migrated', async () => {
      await withWorkers(
        { inspectDatabase },
        async ({ start, calls }) => {
          const handle = await start('migrateCluster');
          const { type, message, all } = await failureOf(handle);
          expect(type).toBe('DatabasesFailed');
          expect(message).toContain('1 of 2 databases failed. closed:');
          expect((all[1] as ClusterReport).databases).toMatchObject([
            { database: 'open', status: 'done' },
            { database: 'closed', status: 'failed', message: expect.stringContaining('pg_hba.conf rejects') as string },
          ]);
          expect(calls.filter((name) => name === 'createDatabase')).toHaveLength(1);
          expect((await progressOf(handle)).databases.map(({ phase }) => phase)).toEqual(['done', 'failed']);
        },
        ['closed', 'open'],
      );
    });

    test('is in the way when there is no other', async () => {
      await withWorkers(
        { inspectDatabase },
        async ({ start, calls }) => {
          expect((await failureOf(await start('migrateCluster'))).type).toBe('ValidationFailed');
          expect(calls).not.toContain('migrateRoles');
        },
        ['closed'],
      );
    });
  });

  test('stop.when "caught-up" stops by itself', async () => {
    await withWorkers({}, async ({ start }) => {
      const report = (await (await start('migrateCluster', { stop: { when: 'caught-up' } })).result()) as ClusterReport;
      expect(report.status).toBe('done');
    });
  });

  test('one database that fails lets the others finish, and the failure carries the report', async () => {
    const copySchema = ({ database }: { database: string }) =>
      database === 'bad'
        ? Promise.reject(failure('SchemaFailed', 'Type public.t cannot be created.'))
        : Promise.resolve({ entries: 1 });
    await withWorkers(
      { copySchema },
      async ({ start, calls }) => {
        const handle = await start('migrateCluster', { onError: 'fail', stop: { when: 'caught-up' } });
        const { type, message, all } = await failureOf(handle);
        expect(type).toBe('DatabasesFailed');
        expect(message).toContain('1 of 2 databases failed. bad: Type public.t cannot be created.');
        const report = all[1] as ClusterReport;
        expect(report.databases.map(({ database, status }) => `${database} ${status}`).sort()).toEqual([
          'bad failed',
          'good done',
        ]);
        expect(calls.filter((name) => name === 'undo')).toHaveLength(1);
      },
      ['bad', 'good'],
    );
  });

  test('parks on a failure that waiting cannot mend, says so, and goes on with retry', async () => {
    let broken = true;
    const copyTables = () =>
      broken
        ? Promise.reject(failure('CopyFailed', 'Table public.t: a CHECK is not satisfied.'))
        : Promise.resolve({ tables: 1, rows: 1, bytes: 1, current: null });
    await withWorkers({ copyTables }, async ({ start, calls }) => {
      const handle = await start('migrateCluster', { stop: { when: 'caught-up' } });
      const parked = await eventually(
        () => progressOf(handle),
        (p) => p.attention !== null,
      );
      expect(parked.attention).toContain('Table public.t: a CHECK is not satisfied.');
      expect(calls).not.toContain('undo');
      await expect(handle.executeUpdate('resolve', { args: [{ action: 'perhaps' }] })).rejects.toMatchObject({
        cause: { message: expect.stringContaining('resolve takes') as string },
      });
      await expect(handle.executeUpdate('resolve', { args: [{ action: 'skip' }] })).rejects.toMatchObject({
        cause: { message: expect.stringContaining('cannot be skipped') as string },
      });
      broken = false;
      await handle.executeUpdate('resolve', { args: [{ action: 'retry' }] });
      expect(((await handle.result()) as ClusterReport).status).toBe('done');
    });
  });

  test('parks while a change cannot be applied, also while it only streams, and retry watches again', async () => {
    let broken = true;
    const watchReplication = (): Promise<void> =>
      broken
        ? Promise.reject(failure('ApplyFailed', 'The target cannot apply a change of public.t.'))
        : untilCancelled();
    await withWorkers({ watchReplication }, async ({ start, calls }) => {
      const handle = await start('migrateCluster');
      const parked = await eventually(
        () => progressOf(handle),
        (p) => p.attention !== null,
      );
      expect(parked).toMatchObject({ phase: 'streaming', databases: [{ answers: ['retry', 'abort'] }] });
      expect(parked.attention).toContain('The target cannot apply a change of public.t.');
      broken = false;
      await handle.executeUpdate('resolve', { args: [{ action: 'retry' }] });
      await eventually(
        () => Promise.resolve(calls.filter((name) => name === 'watchReplication')),
        (watches) => watches.length === 2,
      );
      await eventually(
        () => progressOf(handle),
        (p) => p.attention === null,
      );
      expect(calls).not.toContain('waitForGate');
      await handle.signal('stopReplication');
      expect(((await handle.result()) as ClusterReport).status).toBe('done');
    });
  });

  test('undoes everything when what streams cannot be applied, where the plan says so', async () => {
    const watchReplication = fails('ApplyFailed', 'The target cannot apply a change of public.t.');
    await withWorkers({ watchReplication }, async ({ start, calls }) => {
      const handle = await start('migrateCluster', { onError: 'fail' });
      expect((await failureOf(handle)).message).toContain('The target cannot apply a change of public.t.');
      expect(calls).toContain('undo');
    });
  });

  test('abort ends a parked migration with everything undone', async () => {
    await withWorkers({ planCopy: fails('ServerError', 'No space left on device.') }, async ({ start, calls }) => {
      const handle = await start('migrateCluster');
      await eventually(
        () => progressOf(handle),
        (p) => p.attention !== null,
      );
      await handle.executeUpdate('resolve', { args: [{ action: 'abort', database: 'shop' }] });
      const { message } = await failureOf(handle);
      expect(message).toContain('Aborted by an operator');
      expect(message).toContain('No space left on device.');
      expect(calls.at(-1)).toBe('undo');
    });
  });

  test('skips a materialized view that cannot be refreshed when told to, and reports it; a copy is never skipped', async () => {
    const refreshMaterializedViews = (_m: unknown, which: string) =>
      which === 'empty'
        ? Promise.reject(failure('ConstraintFailed', 'Materialized view public.v divides by zero.'))
        : Promise.resolve({ refreshed: 0 });
    await withWorkers({ refreshMaterializedViews }, async ({ start }) => {
      const handle = await start('migrateCluster', { stop: { when: 'caught-up' } });
      await eventually(
        () => progressOf(handle),
        (p) => p.attention !== null,
      );
      await handle.executeUpdate('resolve', { args: [{ action: 'skip' }] });
      const report = (await handle.result()) as ClusterReport;
      expect(report.databases[0]?.warnings.join()).toContain('divides by zero');
    });
  });

  test('news that a database sent before it heard the answer do not park it again', async () => {
    let failed = false;
    const copyTables = () => {
      if (failed) return untilCancelled();
      failed = true;
      return Promise.reject(failure('CopyFailed', 'Table public.t cannot be copied.'));
    };
    await withWorkers({ copyTables }, async ({ start }) => {
      const handle = await start('migrateCluster', { parallelism: { copy: 1 } });
      const parked = await eventually(
        () => progressOf(handle),
        (p) => p.attention !== null,
      );
      await handle.executeUpdate('resolve', { args: [{ action: 'retry' }] });
      // As a measurement that was on its way would be.
      const late = { number: Date.now() + 3_600_000, progress: parked.databases[0], answersHeard: 0 };
      await handle.signal('databaseProgress', late);
      expect((await progressOf(handle)).databases[0]).toMatchObject({ attention: null, answers: [] });
      const heard = { ...late, number: late.number + 1, answersHeard: 1 };
      await handle.signal('databaseProgress', heard);
      expect((await progressOf(handle)).databases[0]).toMatchObject({ answers: ['retry', 'abort'] });
      await handle.cancel();
      await failureOf(handle);
    });
  });

  test('a lost snapshot is followed by the next one, which finishes the copy; foreign keys come last', async () => {
    let lost = 0;
    const keepSnapshot = (_: unknown, generation: number) =>
      generation === 2 ? Promise.resolve() : Promise.reject(failure('SnapshotLost', `Loss ${++lost}.`));
    // Ends only by cancellation while the snapshot is one that gets lost: what notices the loss must end it.
    const copyTables = (_: unknown, generation: number) =>
      generation === 2 ? Promise.resolve({ tables: 1, rows: 5, bytes: 500, current: null }) : untilCancelled();
    await withWorkers({ keepSnapshot, copyTables }, async ({ start, calls }) => {
      const handle = await start('migrateCluster', { stop: { when: 'caught-up' } });
      const [report] = ((await handle.result()) as ClusterReport).databases;
      expect(report).toMatchObject({ status: 'done', generations: 3 });
      expect(report?.warnings).toEqual([
        'The snapshot was lost, and 2 tables were copied under the next one: Loss 1.',
        'The snapshot was lost, and 2 tables were copied under the next one: Loss 2.',
      ]);
      expect(calls.filter((name) => name === 'closeGeneration')).toHaveLength(2);
      expect(calls.indexOf('restoreForeignKeys')).toBeGreaterThan(calls.indexOf('waitForCatchUp'));
    });
  });

  test('snapshots that are lost one after the other, without a table finished, are the end: everything is undone', async () => {
    const keepSnapshot = fails('SnapshotLost', 'The holder was terminated.');
    await withWorkers({ keepSnapshot, copyTables: untilCancelled }, async ({ start, calls }) => {
      const { message } = await failureOf(await start('migrateCluster'));
      expect(message).toContain('The holder was terminated.');
      expect(calls.filter((name) => name === 'openSnapshot')).toHaveLength(LIMITS.fruitlessGenerations);
      expect(calls.at(-1)).toBe('undo');
    });
  });

  test('a dump is of one snapshot: when that is lost, everything is undone', async () => {
    const keepSnapshot = fails('SnapshotLost', 'The holder was terminated.');
    const inspectDatabase = ({ database }: { database: string }) =>
      Promise.resolve({ database, method: 'dump', reason: 'A test says so.', tables: 2, bytes: 1000, findings: [] });
    const activities = { keepSnapshot, inspectDatabase, copyTables: untilCancelled };
    await withWorkers(activities as never, async ({ start, calls }) => {
      const { message } = await failureOf(await start('migrateCluster'));
      expect(message).toContain('The holder was terminated.');
      expect(calls).not.toContain('closeGeneration');
      expect(calls.at(-1)).toBe('undo');
    });
  });

  test('a copy that can never be finished ends the index lanes that wait for it', async () => {
    const copyTables = fails('SnapshotLost', 'Table public.t was rewritten.');
    await withWorkers({ copyTables, buildIndexes: untilCancelled }, async ({ start, calls }) => {
      const { message } = await failureOf(await start('migrateCluster'));
      expect(message).toContain('Table public.t was rewritten.');
      expect(calls.at(-1)).toBe('undo');
    });
  });

  test('WAL that a slot keeps on the source is said when it is much, and too much of it undoes everything', async () => {
    let retainedBytes = 2e9;
    const measure = () => Promise.resolve({ lagBytes: 0, retainedBytes, problem: null });
    const mendIt = fails('CopyFailed', 'Type "geometry" does not exist.');
    await withWorkers({ measure, copyTables: mendIt }, async ({ start, calls }) => {
      const handle = await start('migrateCluster', { retainedWal: { warnBytes: 1e9, maxBytes: 5e9 } });
      const progress = () => handle.query<ClusterProgress>('progress').then(({ databases }) => databases[0]);
      await eventually(progress, (seen) => seen?.retainedBytes === 2e9);
      // Parked meanwhile: that is what needs an answer.
      expect((await progress())?.attention).toContain('geometry');
      retainedBytes = 6e9;
      expect((await failureOf(handle)).message).toContain(
        'The slot kept 6.0 GB of WAL on the source, and the plan allows 5.0 GB ("retainedWal.maxBytes").',
      );
      expect(calls.at(-1)).toBe('undo');
    });
    await withWorkers({ measure }, async ({ start }) => {
      const handle = await start('migrateCluster', { retainedWal: { warnBytes: 1e9 } });
      const said = await eventually(
        () => handle.query<ClusterProgress>('progress').then(({ attention }) => attention),
        (attention) => attention !== null,
      );
      expect(said).toContain(
        'The slot keeps 6.0 GB of WAL on the source, and nothing ends that before its disk is full.',
      );
      await handle.terminate();
    });
  });

  test('a cutover that fails is put back: subscriptions on, fence lifted, and a new stop can follow', async () => {
    let broken = true;
    const carryOver = () =>
      broken
        ? Promise.reject(failure('ServerError', 'Sequence public.s is gone.'))
        : Promise.resolve({ sequences: 1, largeObjects: 0, unloggedTables: 0 });
    await withWorkers({ carryOver }, async ({ start, calls }) => {
      const handle = await start('migrateCluster', { stop: { fence: 'read-only' } });
      await eventually(() => progressOf(handle), phaseIs('streaming'));
      await handle.signal('stopReplication');
      const parked = await eventually(
        () => progressOf(handle),
        (p) => p.attention !== null,
      );
      expect(parked.attention).toContain('Sequence public.s is gone. The cutover was put back,');
      expect(calls.slice(-2)).toEqual(['enableSubscriptions', 'unfence']);
      broken = false;
      await handle.executeUpdate('resolve', { args: [{ action: 'retry' }] });
      await eventually(() => progressOf(handle), phaseIs('streaming'));
      await handle.signal('stopReplication');
      expect(((await handle.result()) as ClusterReport).status).toBe('done');
    });
  });

  test('a fence that stays up for too long is lifted, and a new stop with more time can follow', async () => {
    let isStuck = true;
    const waitForDrain = async () => {
      if (isStuck) await untilCancelled();
      return undefined;
    };
    await withWorkers({ waitForDrain }, async ({ start, calls }) => {
      const handle = await start('migrateCluster', { stop: { fence: 'read-only' } });
      await eventually(() => progressOf(handle), phaseIs('streaming'));
      await handle.signal('stopReplication', { deadlineSeconds: 1 });
      const parked = await eventually(
        () => progressOf(handle),
        (p) => p.attention !== null,
      );
      expect(parked.attention).toMatch(
        /The cutover was not done 1 s after the fence began to go up\..* "shop: wait until the target has confirmed .* The cutover was put back, and the replication goes on\./,
      );
      expect(parked.databases[0]?.phase).toBe('streaming');
      expect(calls.slice(calls.lastIndexOf('waitForDrain') + 1)).toContain('unfence');
      isStuck = false;
      await handle.executeUpdate('resolve', { args: [{ action: 'retry' }] });
      await eventually(() => progressOf(handle), phaseIs('streaming'));
      await handle.signal('stopReplication', { deadlineSeconds: 60 });
      expect(((await handle.result()) as ClusterReport).status).toBe('done');
    });
  });

  test('what could not be put back is said to who is asked', async () => {
    const carryOver = fails('ServerError', 'Sequence public.s is gone.');
    const unfence = fails('PrivilegeMissing', 'The role may not alter database "shop".');
    await withWorkers({ carryOver, unfence }, async ({ start }) => {
      const handle = await start('migrateCluster', { stop: { fence: 'read-only' } });
      await eventually(() => progressOf(handle), phaseIs('streaming'));
      await handle.signal('stopReplication');
      const parked = await eventually(
        () => progressOf(handle),
        (p) => p.attention !== null,
      );
      expect(parked.attention).toContain(
        'Sequence public.s is gone. Not everything could be put back: Could not lift the fence on the source: The role may not alter database "shop".',
      );
      await handle.terminate();
    });
  });

  test('a cancelled migration is undone before it closes', async () => {
    await withWorkers(
      {},
      async ({ start, calls, client, workflowId }) => {
        const handle = await start('migrateCluster');
        await eventually(() => progressOf(handle), phaseIs('streaming'));
        await handle.cancel();
        await expect(handle.result()).rejects.toThrow();
        expect(calls.filter((name) => name === 'undo')).toHaveLength(2);
        const child = await client.workflow.getHandle(`${workflowId}/a`).describe();
        expect(child.status.name).toBe('CANCELLED');
      },
      ['a', 'b'],
    );
  });

  test('a second start with the same workflow id is refused while the first runs', async () => {
    await withWorkers({}, async ({ start }) => {
      const handle = await start('migrateCluster');
      await expect(start('migrateCluster')).rejects.toThrow(/already started/i);
      await handle.terminate();
    });
  });

  test('copies at most as many databases at once as the plan says; one that streams makes room', async () => {
    let copying = 0;
    let most = 0;
    const planCopy = async () => {
      most = Math.max(most, (copying += 1));
      await new Promise((resolve) => setTimeout(resolve, 300));
      return { tables: 1, bytes: 1, units: 1, indexes: 0 };
    };
    const createSubscription = () => {
      copying -= 1;
      return Promise.resolve();
    };
    await withWorkers(
      { planCopy, createSubscription },
      async ({ start }) => {
        const handle = await start('migrateCluster', { parallelism: { databases: 2 } });
        await eventually(
          () => progressOf(handle),
          (p) => p.databases.length === 5 && phaseIs('streaming')(p),
        );
        expect(most).toBe(2);
        await handle.signal('stopReplication');
        await handle.result();
      },
      ['a', 'b', 'c', 'd', 'e'],
    );
  });

  test('a report that would be 3 MB is cut down and says so, and the workflow ends', async () => {
    const warnings = Array.from({ length: 3000 }, (_, n) => `warning ${n} ${'x'.repeat(1000)}`);
    const readReport = () => Promise.resolve({ tables: 1, rows: 1, bytes: 1, warnings: warnings.slice(0, 1500) });
    await withWorkers({ readReport }, async ({ start }) => {
      const report = (await (await start('migrateCluster', { stop: { when: 'caught-up' } })).result()) as ClusterReport;
      expect(JSON.stringify(report).length).toBeLessThan(1024 * 1024);
      expect(report.databases[0]?.warnings.at(-1)).toMatch(/^And \d+ more warnings\.$/);
    });
  });

  test('the phase is a search attribute', async () => {
    await withWorkers({}, async ({ start, client, workflowId }) => {
      const handle = await start('migrateCluster');
      await eventually(() => progressOf(handle), phaseIs('streaming'));
      const found = await eventually(
        async () => {
          const ids: string[] = [];
          for await (const { workflowId: id } of client.workflow.list({
            query: `PgMigrationPhase="streaming" AND PgCluster="${workflowId}"`,
          }))
            ids.push(id);
          return ids.sort();
        },
        (ids) => ids.length === 2,
      );
      expect(found).toEqual([workflowId, `${workflowId}/shop`]);
      await handle.signal('stopReplication');
      await handle.result();
    });
  });
});
