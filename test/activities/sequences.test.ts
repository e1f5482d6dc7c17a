import { afterEach, describe, expect, test } from 'vitest';
import { sequencesBehind } from '../../src/postgres/sequence-behind.ts';
import { runActivity } from '../support/copy-fixture.ts';
import type { ReplicationFixture } from '../support/replication-fixture.ts';
import { replicationFixture } from '../support/replication-fixture.ts';

const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

async function fixture(schema: string, rows = '', source = 17): Promise<ReplicationFixture> {
  const f = await replicationFixture({ schema, rows, method: 'dump', source });
  closing.push(f.close);
  await runActivity(f.steps.openSnapshot, [f.m, 0]);
  return f;
}

const SCHEMA = `CREATE SEQUENCE public.fresh; CREATE SEQUENCE public.used; CREATE SEQUENCE public.down INCREMENT -1;
  CREATE SEQUENCE public.ring MAXVALUE 5 CYCLE; CREATE SCHEMA "A.b"; CREATE SEQUENCE "A.b"."Q""q; DROP TABLE x";
  CREATE TABLE public.t (id int GENERATED ALWAYS AS IDENTITY)`;

const state = (f: ReplicationFixture, name: string) =>
  f.target.one<{ value: string; called: boolean }>(
    `SELECT last_value::text AS value, is_called AS called FROM ${name}`,
  );

describe('sequences', () => {
  test.each([14, 17])('of every kind arrive from %i as they are', async (major) => {
    const f = await fixture(
      SCHEMA,
      `SELECT setval('public.used', 9223372036854775806); SELECT nextval('public.down'), nextval('public.down');
       SELECT setval('"A.b"."Q""q; DROP TABLE x"', 7, false); INSERT INTO public.t DEFAULT VALUES`,
      major,
    );
    expect(await runActivity(f.steps.copySequences, [f.m, 0])).toEqual({ sequences: 6 });
    expect(await state(f, 'public.fresh')).toEqual({ value: '1', called: false });
    expect(await state(f, 'public.used')).toEqual({ value: '9223372036854775806', called: true });
    expect(await state(f, 'public.down')).toEqual({ value: '-2', called: true });
    expect(await state(f, '"A.b"."Q""q; DROP TABLE x"')).toEqual({ value: '7', called: false });
    expect(await state(f, 'public.t_id_seq')).toEqual({ value: '1', called: true });
  });

  test('that are unlogged arrive, and twice is the same', async () => {
    const f = await fixture(
      'CREATE UNLOGGED SEQUENCE public.light; CREATE UNLOGGED TABLE public.u (id serial)',
      `SELECT setval('public.light', 5); INSERT INTO public.u DEFAULT VALUES`,
    );
    for (let time = 1; time <= 2; time += 1)
      expect(await runActivity(f.steps.copySequences, [f.m, 0])).toEqual({ sequences: 2 });
    expect(await state(f, 'public.light')).toEqual({ value: '5', called: true });
    expect(await state(f, 'public.u_id_seq')).toEqual({ value: '1', called: true });
  });

  test('never go backwards at the stop, but for one that cycles', async () => {
    const f = await fixture(
      SCHEMA,
      `SELECT setval('public.used', 5); SELECT setval('public.down', -5); SELECT setval('public.ring', 2)`,
    );
    await f.target.query(
      `SELECT setval('public.used', 9), setval('public.down', -9), setval('public.ring', 4), nextval('public.fresh')`,
    );
    await runActivity(f.steps.carryOver, [f.m, null]);
    expect(await state(f, 'public.used')).toEqual({ value: '9', called: true });
    expect(await state(f, 'public.down')).toEqual({ value: '-9', called: true });
    expect(await state(f, 'public.ring')).toEqual({ value: '2', called: true });
    expect(await state(f, 'public.fresh')).toEqual({ value: '1', called: true });
    await f.source.query(`SELECT setval('public.used', 20), setval('public.down', -20)`);
    await runActivity(f.steps.carryOver, [f.m, null]);
    expect(await state(f, 'public.used')).toEqual({ value: '20', called: true });
    expect(await state(f, 'public.down')).toEqual({ value: '-20', called: true });
  });

  test('that the target lacks are named', async () => {
    const f = await fixture(SCHEMA);
    await f.target.query('DROP SEQUENCE public.used');
    await expect(runActivity(f.steps.copySequences, [f.m, 0])).rejects.toMatchObject({
      type: 'SchemaFailed',
      details: { object: 'public.used' },
    });
  });

  test('that came after the snapshot do not stop the copy', async () => {
    const f = await fixture(SCHEMA);
    await f.source.query('CREATE SEQUENCE public.late');
    expect(await runActivity(f.steps.copySequences, [f.m, 0])).toEqual({ sequences: 6 });
  });

  test('that came after the snapshot do not stop a cutover: they are a warning', async () => {
    const f = await fixture(SCHEMA);
    await f.source.query('CREATE SEQUENCE public.late');
    await runActivity(f.steps.carryOver, [f.m, null]);
    const warnings = await f.target.query<{ message: string }>('SELECT message FROM pgtransit.event WHERE warning');
    expect(warnings.map(({ message }) => message).join()).toContain('public.late');
  });

  test('that are behind their rows are found, whatever they feed, and said once when the migration begins', async () => {
    const f = await fixture(
      `CREATE TABLE public.identity (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY);
       CREATE TABLE public.serial (id bigserial, at int, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
       CREATE TABLE public.part PARTITION OF public.serial DEFAULT;
       CREATE SEQUENCE public."Do'wn" INCREMENT -1;
       CREATE TABLE public."De.f" ("N" int UNIQUE DEFAULT nextval('public."Do''wn"'));
       CREATE TABLE public.unasked (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY);
       CREATE TABLE public.anything (id serial);
       CREATE TABLE public.cycling (id int GENERATED BY DEFAULT AS IDENTITY (MAXVALUE 9 CYCLE) PRIMARY KEY)`,
      `INSERT INTO public.identity VALUES (7); INSERT INTO public.serial (at) SELECT g FROM generate_series(1, 5) g;
       SELECT setval('public.serial_id_seq', 4); INSERT INTO public."De.f" VALUES (-3); INSERT INTO public.unasked VALUES (0);
       INSERT INTO public.anything VALUES (5); INSERT INTO public.cycling VALUES (5)`,
    );
    const behind = [
      { sequence: `public."Do'wn"`, column: 'public."De.f".N', value: '-1', taken: '-3' },
      { sequence: 'public.identity_id_seq', column: 'public.identity.id', value: '1', taken: '7' },
      { sequence: 'public.serial_id_seq', column: 'public.serial.id', value: '4', taken: '5' },
    ];
    expect(await sequencesBehind(f.source)).toMatchObject(behind);
    await runActivity(f.steps.copySequences, [f.m, 0]);
    await runActivity(f.steps.copySequences, [f.m, 0]);
    const said = () =>
      f.target.query<{ message: string }>('SELECT message FROM pgtransit.event WHERE warning ORDER BY id');
    expect((await said()).map(({ message }) => message.replace(/ when .*/, ''))).toEqual(
      behind.map(({ sequence, column }) => `Sequence ${sequence} was behind ${column}`),
    );
    for (const { remedy } of await sequencesBehind(f.source)) await f.source.query(remedy);
    expect(await sequencesBehind(f.source)).toEqual([]);
  });
});
