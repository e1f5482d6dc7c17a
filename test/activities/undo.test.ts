import { afterEach, expect, test } from 'vitest';
import { generationName } from '../../src/contract.ts';
import { countRows, runActivity } from '../support/copy-fixture.ts';
import type { ReplicationFixture, ReplicationOptions } from '../support/replication-fixture.ts';
import { replicationFixture } from '../support/replication-fixture.ts';
import { dropDatabase } from '../support/servers.ts';

const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

async function fixture(options: ReplicationOptions = {}): Promise<ReplicationFixture> {
  const f = await replicationFixture({ schema: 'CREATE TABLE public.t (id int PRIMARY KEY)', ...options });
  closing.push(f.close);
  return f;
}

/** Of the replication, on either server. */
async function leftOf({ m, source, target }: ReplicationFixture): Promise<string[]> {
  const rows = await Promise.all(
    [source, target].map((session) =>
      session.query<{ kind: string }>(
        `SELECT 'publication' AS kind FROM pg_publication WHERE pubname LIKE $1
         UNION ALL SELECT 'slot' FROM pg_replication_slots WHERE slot_name LIKE $1
         UNION ALL SELECT 'subscription' FROM pg_subscription WHERE subname LIKE $1`,
        [`pgtransit_${m.id}%`],
      ),
    ),
  );
  return rows.flat().map(({ kind }) => kind);
}

test('undoing leaves nothing of a migration that streams, keeps the rows, and may run again', async () => {
  const f = await fixture({ rows: 'INSERT INTO public.t VALUES (1)' });
  await f.stream();
  for (let time = 1; time <= 2; time += 1) {
    await runActivity(f.steps.undo, [f.m]);
    expect(await f.leftovers()).toEqual([]);
  }
  expect(await countRows(f.target, 'public.t')).toBe(1);
  await f.source.query('UPDATE public.t SET id = 2');
});

test('undoing ends a holder and its slot while rows are copied', async () => {
  const f = await fixture();
  await runActivity(f.steps.openSnapshot, [f.m, 0]);
  await f.open('target', `pgtransit_${f.m.id}_copy`);
  await runActivity(f.steps.undo, [f.m]);
  expect(await f.leftovers()).toEqual([]);
});

test('undoing before anything was made is nothing', async () => {
  const f = await fixture();
  await f.target.query('DROP SCHEMA pgtransit CASCADE');
  await runActivity(f.steps.undo, [f.m]);
});

test('undoing without the database on the target clears the source', async () => {
  const f = await fixture();
  await runActivity(f.steps.openSnapshot, [f.m, 0]);
  await f.target.close();
  await dropDatabase(f.to.uri(), f.m.database);
  await runActivity(f.steps.undo, [f.m]);
  const left = await f.source.query(
    `SELECT slot_name FROM pg_replication_slots WHERE slot_name LIKE $1 UNION ALL SELECT pubname FROM pg_publication
     UNION ALL SELECT application_name FROM pg_stat_activity WHERE application_name LIKE $1 AND application_name !~ '_control$'`,
    [`pgtransit_${f.m.id}%`],
  );
  expect(left).toEqual([]);
});

test('a target that cannot be reached does not keep the source from being undone', async () => {
  const f = await fixture();
  await runActivity(f.steps.openSnapshot, [f.m, 0]);
  const { port } = f.endpoints.target.info;
  Object.assign(f.endpoints.target, { info: { ...f.endpoints.target.info, port: '1' } });
  await expect(runActivity(f.steps.undo, [f.m])).rejects.toMatchObject({ type: 'ConnectionFailed' });
  Object.assign(f.endpoints.target, { info: { ...f.endpoints.target.info, port } });
  expect(await f.leftovers()).toEqual(['schema']);
});

test('undoing never touches another migration', async () => {
  const [f, other] = [await fixture(), await fixture()];
  await runActivity(other.steps.openSnapshot, [other.m, 0]);
  const before = await other.leftovers();
  await runActivity(f.steps.undo, [f.m]);
  expect(await other.leftovers()).toEqual(before);
  const foreign = { ...other.m, id: f.m.id };
  await runActivity(other.steps.undo, [foreign]);
  expect(await other.leftovers()).toEqual(before);
});

const settings = async (f: ReplicationFixture): Promise<string[]> => {
  const rows = await (
    await f.open('source')
  ).query<{ setting: string }>(
    `SELECT setting FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase, unnest(setconfig) AS setting WHERE datname = current_database()`,
  );
  return rows.map(({ setting }) => setting);
};
const FENCED = ['default_transaction_read_only=on'];

test('undoing lifts the fence', async () => {
  const f = await fixture();
  await f.stream();
  await runActivity(f.steps.fence, [f.m, 'read-only']);
  expect(await settings(f)).toEqual(FENCED);
  await runActivity(f.steps.undo, [f.m]);
  expect(await settings(f)).toEqual([]);
});

test('clearing away drops the replication, also when the source is gone first, and keeps the fence and the bookkeeping', async () => {
  const f = await fixture();
  await f.stream();
  await runActivity(f.steps.fence, [f.m, 'read-only']);
  const { source } = f.endpoints;
  Object.assign(f.endpoints, { source: { ...source, info: { ...source.info, port: '1' } } });
  await expect(runActivity(f.steps.clearAway, [f.m])).rejects.toMatchObject({ type: 'ConnectionFailed' });
  Object.assign(f.endpoints, { source });
  const g = { ...f, source: await f.open('source') };
  expect(await leftOf(g)).toEqual(['publication', 'slot']);
  for (let time = 1; time <= 2; time += 1) {
    await runActivity(f.steps.clearAway, [f.m]);
    expect(await leftOf(g)).toEqual([]);
    expect(await g.target.query('SELECT FROM pgtransit.migration')).toHaveLength(1);
    expect(await settings(f)).toEqual(FENCED);
  }
});

test('a source that cannot be reached does not keep the target from being undone, and the undoing is tried again', async () => {
  const f = await fixture();
  await f.stream();
  const { port } = f.endpoints.source.info;
  Object.assign(f.endpoints.source, { info: { ...f.endpoints.source.info, port: '1' } });
  await expect(runActivity(f.steps.undo, [f.m])).rejects.toMatchObject({ type: 'ConnectionFailed' });
  const left = await f.leftovers();
  Object.assign(f.endpoints.source, { info: { ...f.endpoints.source.info, port } });
  expect(left).not.toContain(`subscription ${generationName(f.m.id, 0)}`);
  await runActivity(f.steps.undo, [f.m]);
  expect(await f.leftovers()).toEqual([]);
});
