import { afterEach, describe, expect, test } from 'vitest';
import type { Session } from '../../src/postgres/connection.ts';
import { eventually, runActivity } from '../support/copy-fixture.ts';
import type { ReplicationFixture } from '../support/replication-fixture.ts';
import { replicationFixture } from '../support/replication-fixture.ts';

const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

const SCHEMA = `
  CREATE TABLE public.app (id int PRIMARY KEY);
  CREATE UNLOGGED TABLE public."the cache" (id int PRIMARY KEY, v text, at timestamptz DEFAULT now());
  CREATE UNLOGGED TABLE public.uses_it (id int PRIMARY KEY, cache int REFERENCES public."the cache");
  CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'fired'; END $$;
  CREATE TRIGGER refuse BEFORE INSERT OR DELETE ON public."the cache" FOR EACH ROW EXECUTE FUNCTION public.refuse();`;

const ROWS = `
  SET session_replication_role = replica;
  INSERT INTO public."the cache" SELECT g, 'before' FROM generate_series(1, 100) g;
  INSERT INTO public.uses_it SELECT g, g FROM generate_series(1, 10) g;
  SELECT lo_from_bytea(7001, 'stays'), lo_from_bytea(7002, 'changes'), lo_from_bytea(7003, 'goes'), lo_from_bytea(7004, decode(repeat('ab', 300000), 'hex'))`;

/** Copied, streaming, and with its subscriptions disabled, as it is behind the fence. */
async function drained(): Promise<ReplicationFixture> {
  const f = await replicationFixture({ schema: SCHEMA, rows: ROWS });
  closing.push(f.close);
  await runActivity(f.steps.openSnapshot, [f.m, 0]);
  await runActivity(f.steps.planCopy, [f.m, 0]);
  await f.target.query('ALTER TABLE public."the cache" DISABLE TRIGGER USER');
  await runActivity(f.steps.copyTables, [f.m, 0, 0]);
  await f.target.query('ALTER TABLE public."the cache" ENABLE TRIGGER USER');
  await runActivity(f.steps.copyLargeObjects, [f.m, 0]);
  await runActivity(f.steps.sealCopy, [f.m, 0]);
  await runActivity(f.steps.keepSnapshot, [f.m, 0]);
  await runActivity(f.steps.createSubscription, [f.m]);
  await runActivity(f.steps.waitForCatchUp, [f.m]);
  await runActivity(f.steps.disableSubscriptions, [f.m]);
  return f;
}

/** By a session that has ended, and told the server's counters by that. */
async function onSource(f: ReplicationFixture, sql: string): Promise<void> {
  await f.from.psql(f.m.database, sql);
  await eventually('its end', async () => {
    const there = `SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'psql'`;
    return (await f.source.query(there)).length === 0;
  });
}

const objects = (session: Session) =>
  session.query(`SELECT oid::int AS oid, md5(lo_get(oid)) AS md5, pg_get_userbyid(lomowner) AS owner,
                        obj_description(oid, 'pg_largeobject') AS comment
                   FROM pg_largeobject_metadata ORDER BY oid`);

describe('what no stream brings', () => {
  test('large objects that were made or changed arrive with the cutover, ahead of the fence and behind it', async () => {
    const f = await drained();
    await onSource(
      f,
      `SELECT lo_put(7002, 3, 'xyz'), lo_from_bytea(7005, 'new'), lo_put(7004, 299999, 'cd'); COMMENT ON LARGE OBJECT 7005 IS 'made later'`,
    );
    const ahead = await runActivity(f.steps.catchUpLargeObjects, [f.m]);
    expect(await objects(f.target)).toEqual(await objects(f.source));
    expect(ahead).not.toBeNull();

    // Nothing has changed since by the server's count, so nothing is compared; without the count, all is.
    await f.target.query(`SELECT lo_put(7001, 0, 'other')`);
    expect(await runActivity(f.steps.carryOver, [f.m, ahead])).toMatchObject({ largeObjects: 0 });
    expect(await runActivity(f.steps.carryOver, [f.m, null])).toMatchObject({ largeObjects: 1 });
    expect(await objects(f.target)).toEqual(await objects(f.source));

    await onSource(f, `SELECT lo_from_bytea(7006, ''), lo_put(7001, 0, 'S')`);
    expect(await runActivity(f.steps.carryOver, [f.m, ahead])).toMatchObject({ largeObjects: 2 });
    expect(await objects(f.target)).toEqual(await objects(f.source));

    await onSource(f, 'SELECT lo_unlink(7003)');
    await runActivity(f.steps.carryOver, [f.m, null]);
    const warnings = await f.target.query<{ message: string }>('SELECT message FROM pgtransit.event WHERE warning');
    expect(warnings.map(({ message }) => message).join()).toMatch(/1 large objects .* such as 7003: they were left/);
  });

  test('unlogged tables arrive as they are at the cutover, without their triggers', async () => {
    const f = await drained();
    await onSource(
      f,
      `SET session_replication_role = replica; DELETE FROM public."the cache" WHERE id > 50;
       UPDATE public."the cache" SET v = 'after' WHERE id < 10; INSERT INTO public."the cache" VALUES (1000, E'tab\t\\N')`,
    );
    const rows = (session: Session) => session.query('SELECT * FROM public."the cache" ORDER BY id');
    expect(await rows(f.target)).not.toEqual(await rows(f.source));
    for (let time = 1; time <= 2; time += 1)
      expect(await runActivity(f.steps.carryOver, [f.m, null])).toMatchObject({ unloggedTables: 2 });
    expect(await rows(f.target)).toEqual(await rows(f.source));
    expect(await f.target.query('SELECT count(*)::int AS rows FROM public.uses_it')).toEqual([{ rows: 10 }]);
  });
});
