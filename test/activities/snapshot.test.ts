import { afterEach, describe, expect, test } from 'vitest';
import { setTimeout as delay } from 'node:timers/promises';
import { applicationName, generationName } from '../../src/contract.ts';
import type { Session } from '../../src/postgres/connection.ts';
import { detachHolder, openHolder } from '../../src/postgres/snapshot.ts';
import { startPostgres } from '../../lab/postgres-server.ts';
import { countRows, eventually, runActivity } from '../support/copy-fixture.ts';
import type { ReplicationFixture, ReplicationOptions } from '../support/replication-fixture.ts';
import { replicationFixture, runInBackground } from '../support/replication-fixture.ts';

const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

async function fixture(options: ReplicationOptions = {}): Promise<ReplicationFixture> {
  const made = await replicationFixture({ schema: 'CREATE TABLE public.t (id int PRIMARY KEY, v text)', ...options });
  closing.push(made.close);
  return made;
}

const holders = async (session: Session, name: string): Promise<number> =>
  (await session.query('SELECT FROM pg_stat_activity WHERE application_name = $1', [name])).length;

describe('opening a snapshot', () => {
  test.each([
    [17, 18],
    [14, 18],
    [15, 17],
  ])('on %i makes a slot at which snapshot and changes meet', async (source, target) => {
    const f = await fixture({ source, target, rows: "INSERT INTO public.t VALUES (1, 'before')" });
    const opened = await runActivity(f.steps.openSnapshot, [f.m, 0]);
    expect(opened.consistentPoint).toMatch(/^[0-9A-F]+\/[0-9A-F]+$/);
    await f.source.query("INSERT INTO public.t VALUES (2, 'after')");
    await f.copy();
    expect(await countRows(f.target, 'public.t')).toBe(1);
    await runActivity(f.steps.createSubscription, [f.m]);
    await eventually('the change after the snapshot', async () => (await countRows(f.target, 'public.t')) === 2);
  });

  test('a second time answers with the same generation and makes nothing new', async () => {
    const f = await fixture();
    const first = await runActivity(f.steps.openSnapshot, [f.m, 0]);
    const pid = (await f.target.one<{ pid: number }>('SELECT holder_pid AS pid FROM pgtransit.generation')).pid;
    expect(await runActivity(f.steps.openSnapshot, [f.m, 0])).toEqual(first);
    expect((await f.target.one<{ pid: number }>('SELECT holder_pid AS pid FROM pgtransit.generation')).pid).toBe(pid);
    expect(await holders(f.source, applicationName(f.m.id, 'holder'))).toBe(1);
  });

  test('a table that is created between publication and slot is published too', async () => {
    const f = await fixture();
    // Slot creation waits for this transaction, so what it creates comes after the publication and before the slot.
    const late = await f.open('source');
    await late.query('BEGIN; CREATE TABLE public.late (id int PRIMARY KEY)');
    const opening = runActivity(f.steps.openSnapshot, [f.m, 0]);
    await eventually('slot creation waiting', async () => {
      const rows = await f.source.query('SELECT FROM pg_replication_slots WHERE slot_name = $1', [
        generationName(f.m.id, 0),
      ]);
      return rows.length > 0;
    });
    await late.query('COMMIT');
    await opening;
    const published = await f.source.query<{ tablename: string }>(
      'SELECT tablename FROM pg_publication_tables WHERE pubname = $1 ORDER BY 1',
      [generationName(f.m.id, 0)],
    );
    expect(published.map(({ tablename }) => tablename)).toEqual(['late', 't']);
  });

  test('names the transaction that slot creation waits for', async () => {
    const f = await fixture({ times: { slotLockTimeoutSeconds: 1 } });
    const old = await f.open('source');
    await old.query("BEGIN; INSERT INTO public.t VALUES (1, 'open')");
    await expect(runActivity(f.steps.openSnapshot, [f.m, 0])).rejects.toMatchObject({
      type: 'SlotBlocked',
      message: expect.stringContaining(`${old.pid}`) as string,
    });
    await old.query('ROLLBACK');
    await runActivity(f.steps.openSnapshot, [f.m, 0]);
  });

  test('names the prepared transaction that slot creation waits for', async () => {
    const f = await fixture({ times: { slotLockTimeoutSeconds: 1 } });
    await f.source.query("BEGIN; INSERT INTO public.t VALUES (1, 'open'); PREPARE TRANSACTION 'forgotten'");
    const opening = runActivity(f.steps.openSnapshot, [f.m, 0]);
    await opening.catch(() => undefined);
    await f.source.query("ROLLBACK PREPARED 'forgotten'");
    await expect(opening).rejects.toMatchObject({
      type: 'SlotBlocked',
      message: expect.stringContaining("prepared transaction 'forgotten'") as string,
    });
    await runActivity(f.steps.openSnapshot, [f.m, 0]);
  });

  test('of a dump has neither slot nor publication', async () => {
    const f = await fixture({ method: 'dump' });
    expect((await runActivity(f.steps.openSnapshot, [f.m, 0])).consistentPoint).toBeNull();
    expect(await f.leftovers()).toEqual([`session ${applicationName(f.m.id, 'holder')}`, 'schema']);
  });

  test('on another server than the one that was validated is refused', async () => {
    const f = await fixture();
    const servers = { ...f.m.servers, source: { ...f.m.servers.source, systemIdentifier: '1' } };
    await expect(runActivity(f.steps.openSnapshot, [{ ...f.m, servers }, 0])).rejects.toMatchObject({
      type: 'WrongServer',
    });
    expect(await f.leftovers()).toEqual(['schema']);
  });

  test('clears away what an attempt that died before the booking left', async () => {
    const f = await fixture();
    const name = generationName(f.m.id, 0);
    await f.source.query(`CREATE PUBLICATION "${name}" FOR TABLE public.t`);
    await f.source.query(`SELECT pg_create_logical_replication_slot('${name}', 'pgoutput')`);
    const orphan = await f.open('source', applicationName(f.m.id, 'holder'));
    await orphan.query('BEGIN');
    await runActivity(f.steps.openSnapshot, [f.m, 0]);
    expect(await holders(f.source, applicationName(f.m.id, 'holder'))).toBe(1);
    const { pid } = await f.target.one<{ pid: number }>('SELECT holder_pid AS pid FROM pgtransit.generation');
    expect(pid).not.toBe(orphan.pid);
  });
});

describe('the holder', () => {
  test(
    'ends by itself when no keep session is there, whatever other holders there are',
    { timeout: 40_000 },
    async () => {
      const times = { seconds: 2, mostSeconds: 3600 };
      const [one, other] = [await fixture({ times }), await fixture({ times })];
      for (const f of [one, other]) await runActivity(f.steps.openSnapshot, [f.m, 0]);
      for (const f of [one, other])
        await eventually(
          'the holder gone',
          async () => (await holders(f.source, applicationName(f.m.id, 'holder'))) === 0,
        );
    },
  );

  test('lives while it is kept, and ends at the hard maximum even so', { timeout: 40_000 }, async () => {
    const f = await fixture({ times: { seconds: 4, mostSeconds: 8 } });
    await runActivity(f.steps.openSnapshot, [f.m, 0]);
    const keeping = runInBackground(f.steps.keepSnapshot, [f.m, 0]);
    await delay(6_000);
    expect(await holders(f.source, applicationName(f.m.id, 'holder'))).toBe(1);
    expect(await keeping.ended).toMatchObject({ type: 'SnapshotLost' });
  });

  test('survives the timeouts of its server', { timeout: 60_000 }, async () => {
    const server = await startPostgres({
      major: 17,
      settings: {
        idle_in_transaction_session_timeout: '1s',
        statement_timeout: '2s',
        transaction_timeout: '2s',
        wal_sender_timeout: '1s',
      },
    });
    closing.push(server.remove);
    const f = await fixture({ source: server });
    await runActivity(f.steps.openSnapshot, [f.m, 0]);
    await delay(5_000);
    await f.copy();
  });

  test('is ended by its keeper once the copy is sealed, and keeping it after that is nothing', async () => {
    const f = await fixture();
    await runActivity(f.steps.openSnapshot, [f.m, 0]);
    const keeping = runInBackground(f.steps.keepSnapshot, [f.m, 0]);
    await f.copy();
    expect(await keeping.ended).toBeUndefined();
    await eventually('no holder', async () => (await holders(f.source, applicationName(f.m.id, 'holder'))) === 0);
    await runActivity(f.steps.keepSnapshot, [f.m, 0]);
  });
});

describe('keeping the snapshot', () => {
  test('goes on until it is cancelled', async () => {
    const f = await fixture();
    await runActivity(f.steps.openSnapshot, [f.m, 0]);
    const keeping = runInBackground(f.steps.keepSnapshot, [f.m, 0]);
    await eventually('a keep session', async () => (await holders(f.source, applicationName(f.m.id, 'keep'))) === 1);
    keeping.cancel();
    expect(await keeping.ended).toMatchObject({ name: 'CancelledFailure' });
    expect(await holders(f.source, applicationName(f.m.id, 'holder'))).toBe(1);
  });

  test.each([
    [
      'the holder is terminated',
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE '%ID_holder'`,
    ],
    ['the slot is dropped', `SELECT pg_drop_replication_slot('pgtransit_ID_g0')`],
  ])('fails with SnapshotLost when %s', async (_what, sql) => {
    const f = await fixture();
    await runActivity(f.steps.openSnapshot, [f.m, 0]);
    const keeping = runInBackground(f.steps.keepSnapshot, [f.m, 0]);
    await eventually('a keep session', async () => (await holders(f.source, applicationName(f.m.id, 'keep'))) === 1);
    await f.source.query(sql.replace('ID', f.m.id));
    expect(await keeping.ended).toMatchObject({ type: 'SnapshotLost' });
  });
});

describe('a worker that dies', () => {
  test('just before the booking costs nothing: the next attempt begins again', async () => {
    const f = await fixture();
    const name = generationName(f.m.id, 0);
    await f.source.query(`CREATE PUBLICATION "${name}" FOR TABLE public.t`);
    const control = await f.open('source');
    const holder = await openHolder(control, {
      endpoint: f.endpoints.source,
      database: f.m.database,
      name: applicationName(f.m.id, 'holder'),
      slot: name,
      slotLockTimeoutSeconds: 30,
      signal: new AbortController().signal,
    });
    await detachHolder(holder, control, applicationName(f.m.id, 'keep'), { seconds: 60, mostSeconds: 60 });
    const opened = await runActivity(f.steps.openSnapshot, [f.m, 0]);
    expect(opened.consistentPoint).not.toBe(holder.consistentPoint);
    expect(await holders(f.source, applicationName(f.m.id, 'holder'))).toBe(1);
  });
});

const SCHEMA = 'CREATE TABLE public.t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text)';
const WRITE = "INSERT INTO public.t (v) VALUES ('live')";

test('a holder is detached before it is booked, so that a worker may die between', async () => {
  const f = await replicationFixture({ schema: SCHEMA });
  closing.push(f.close);
  await f.target
    .query(`CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(3); RETURN NEW; END';
    CREATE TRIGGER slow BEFORE INSERT ON pgtransit.generation FOR EACH ROW EXECUTE FUNCTION public.slow()`);
  const opening = runActivity(f.steps.openSnapshot, [f.m, 0]);
  await eventually(
    'the booking',
    async () =>
      (
        await f.target.query(
          `SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()`,
        )
      ).length > 0,
  );
  const [holder] = await f.source.query<{ state: string }>(
    `SELECT state FROM pg_stat_activity WHERE application_name = $1`,
    [`pgtransit_${f.m.id}_holder`],
  );
  await opening;
  expect(holder?.state).toBe('active');
});

test('a publication of more tables than the server has locks', async () => {
  const server = await startPostgres({
    major: 17,
    settings: { max_locks_per_transaction: '10', max_connections: '20', max_prepared_transactions: '0' },
  });
  closing.push(server.remove);
  const f = await replicationFixture({ source: server });
  closing.push(f.close);
  for (let i = 0; i < 3000; i += 100)
    await f.source.query(Array.from({ length: 100 }, (_, n) => `CREATE TABLE public.t${i + n} (id int)`).join(';'));
  await runActivity(f.steps.openSnapshot, [f.m, 0]);
  const { count } = await f.source.one<{ count: number }>(
    'SELECT count(*)::int AS count FROM pg_publication_tables WHERE pubname = $1',
    [generationName(f.m.id, 0)],
  );
  expect(count).toBe(3000);
}, 120_000);

test('a role that may not see other sessions is still told who blocks', async () => {
  const server = await startPostgres({ major: 17 });
  closing.push(server.remove);
  await server.psql('postgres', 'CREATE ROLE mover LOGIN REPLICATION');
  const f = await replicationFixture({
    source: server,
    sourceUri: (database) => server.uri(database, { user: 'mover' }),
    times: { slotLockTimeoutSeconds: 1 },
  });
  closing.push(f.close);
  await f.source.query(
    `GRANT CREATE ON DATABASE "${f.m.database}" TO mover; ${SCHEMA}; ALTER TABLE public.t OWNER TO mover`,
  );
  const old = await f.open('source');
  await old.query(`BEGIN; ${WRITE}`);
  await expect(runActivity(f.steps.openSnapshot, [f.m, 0])).rejects.toThrow(String(old.pid));
  await old.query('ROLLBACK');
}, 120_000);
