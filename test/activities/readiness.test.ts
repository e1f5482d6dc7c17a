import { afterAll, beforeAll, expect, test } from 'vitest';
import { createReadinessActivities } from '../../activities/readiness.ts';
import type { Condition, StreamSample } from '../../src/domain/readiness.ts';
import { eventually, runActivity } from '../support/copy-fixture.ts';
import type { ReplicationFixture } from '../support/replication-fixture.ts';
import { replicationFixture } from '../support/replication-fixture.ts';

const SCHEMA = `
  CREATE TABLE public.t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text, n int CONSTRAINT positive CHECK (n > 0));
  CREATE MATERIALIZED VIEW public.mv AS SELECT 1 AS one;`;

let f: ReplicationFixture;
/** Of a look before, taken to be long ago, so that a look does not wait for its second sample. */
let sample: StreamSample | null = null;

beforeAll(async () => {
  f = await replicationFixture({
    schema: SCHEMA,
    rows: "INSERT INTO public.t (v, n) SELECT 'x', 1 FROM generate_series(1, 100)",
  });
  await f.stream();
  await f.target.query('ANALYZE');
  // Other tests have roles of their own on the shared servers.
  const roles = await f.source.query<{ name: string }>(
    "SELECT rolname AS name FROM pg_roles WHERE rolname <> 'postgres'",
  );
  f.m.plan.roles.exclude = roles.map(({ name }) => name);
});
afterAll(() => f.close());

async function look(): Promise<Condition[]> {
  const found = await runActivity(createReadinessActivities(f.deps).readiness, [f.m, sample]);
  sample = found.sample && { ...found.sample, atMs: found.sample.atMs - 5_000 };
  return found.conditions;
}

const stateOf = async (name: string): Promise<string> => {
  const found = (await look()).find((condition) => condition.name === name);
  return `${found?.state ?? 'missing'}: ${found?.detail ?? ''} ${found?.next ?? ''}`;
};

test('a healthy stream is ready', async () => {
  const conditions = await look();
  expect(conditions.filter(({ state }) => state !== 'ok')).toEqual([]);
  expect(conditions).toHaveLength(18);
});

interface Case {
  name: string;
  source?: string;
  target?: string;
  undoSource?: string;
  undoTarget?: string;
  says: RegExp;
}

const CASES: Case[] = [
  {
    name: 'copy-complete',
    target: `INSERT INTO pgtransit.unit (generation, kind, relation, label, bytes) VALUES (0, 'index', 1, 'i', 1)`,
    undoTarget: `DELETE FROM pgtransit.unit WHERE label = 'i'`,
    says: /^problem: 1 pieces/,
  },
  {
    name: 'constraints',
    target: 'ALTER TABLE public.t DROP CONSTRAINT positive, ADD CONSTRAINT positive CHECK (n > 0) NOT VALID',
    undoTarget: 'ALTER TABLE public.t VALIDATE CONSTRAINT positive',
    says: /^problem: .*positive.*VALIDATE CONSTRAINT/,
  },
  {
    name: 'indexes',
    target: `CREATE INDEX bad ON public.t (v); UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'public.bad'::regclass`,
    undoTarget: 'DROP INDEX public.bad',
    says: /^problem: .*bad.*REINDEX/,
  },
  {
    name: 'materialized-views',
    target: 'REFRESH MATERIALIZED VIEW public.mv WITH NO DATA',
    undoTarget: 'REFRESH MATERIALIZED VIEW public.mv',
    says: /^problem: Not populated.*mv.*REFRESH MATERIALIZED VIEW/,
  },
  {
    name: 'sequences',
    source: `SELECT setval('public.t_id_seq', 7)`,
    undoSource: `SELECT setval('public.t_id_seq', 100)`,
    says: /^problem: .*t_id_seq was moved behind its rows.*SELECT setval/,
  },
  {
    name: 'definitions',
    source: 'ALTER TABLE public.t ADD COLUMN more text',
    undoSource: 'ALTER TABLE public.t DROP COLUMN more',
    says: /^problem: .*more/,
  },
  {
    name: 'unpublished-tables',
    source: 'CREATE TABLE public.late (id int PRIMARY KEY)',
    undoSource: 'DROP TABLE public.late',
    says: /^problem: .*late/,
  },
  {
    name: 'extensions',
    source: 'CREATE EXTENSION citext SCHEMA public',
    undoSource: 'DROP EXTENSION citext',
    says: /^problem: .*citext.*CREATE EXTENSION/,
  },
  {
    name: 'statistics',
    target: 'CREATE TABLE public.fresh AS SELECT 1 AS id',
    undoTarget: 'DROP TABLE public.fresh',
    says: /^problem: .*fresh.*ANALYZE/,
  },
];

test.each(CASES)(
  '$name is a problem until it is mended',
  async ({ name, source, target, undoSource, undoTarget, says }) => {
    if (source !== undefined) await f.source.query(source);
    if (target !== undefined) await f.target.query(target);
    expect(await stateOf(name)).toMatch(says);
    if (undoSource !== undefined) await f.source.query(undoSource);
    if (undoTarget !== undefined) await f.target.query(undoTarget);
    expect(await stateOf(name)).toMatch(/^ok/);
  },
);

test('a stream whose subscription is disabled is a problem', async () => {
  await runActivity(f.steps.disableSubscriptions, [f.m]);
  expect(await stateOf('streaming')).toMatch(/^problem: .*disabled.*ENABLE/);
  await runActivity(f.steps.enableSubscriptions, [f.m]);
  await eventually('the stream', async () => (await stateOf('streaming')).startsWith('ok'));
});

test("a target that cannot be read leaves its conditions unknown and the source's as they are", async () => {
  const deps = {
    ...f.deps,
    endpoint: (reference: string, server: 'source' | 'target') => {
      const endpoint = f.deps.endpoint(reference, server);
      return server === 'source' ? endpoint : { ...endpoint, info: { ...endpoint.info, port: '1' } };
    },
  };
  const { conditions } = await runActivity(createReadinessActivities(deps).readiness, [f.m, null]);
  const states = new Map(conditions.map(({ name, state }) => [name, state]));
  expect(states.get('streaming')).toBe('unknown');
  expect(states.get('statistics')).toBe('unknown');
  expect(states.get('sequences')).toBe('ok');
  expect(conditions.find(({ name }) => name === 'streaming')?.detail).toMatch(/could not be seen/);
});

test('a role that may log in on the source is missed on the target until it is there with a password', async () => {
  const role = `late_${f.m.id}`;
  await f.source.query(`CREATE ROLE ${role} LOGIN PASSWORD 'x'`);
  const { exclude } = f.m.plan.roles;
  try {
    expect(await stateOf('login-roles')).toMatch(new RegExp(`^problem: Not on the target: .*${role}`));
    await f.target.query(`CREATE ROLE ${role} LOGIN`);
    const others = await f.source.query<{ name: string }>('SELECT rolname AS name FROM pg_roles WHERE rolname <> $1', [
      role,
    ]);
    f.m.plan.roles.exclude = others.map(({ name }) => name);
    expect(await stateOf('login-roles')).toMatch(/^problem: Without a password on the target/);
    await f.target.query(`ALTER ROLE ${role} PASSWORD 'x'`);
    expect(await stateOf('login-roles')).toMatch(/^ok/);
  } finally {
    f.m.plan.roles.exclude = exclude;
    await f.source.query(`DROP ROLE IF EXISTS ${role}`);
    await f.target.query(`DROP ROLE IF EXISTS ${role}`);
  }
});

test('who may see little is told what is unknown, and what it may not read', async () => {
  const role = `little_${f.m.id}`;
  await f.source.query(`CREATE ROLE ${role} LOGIN PASSWORD 'x'`);
  try {
    const deps = {
      ...f.deps,
      endpoint: (reference: string, server: 'source' | 'target') => {
        const endpoint = f.deps.endpoint(reference, server);
        return server === 'target' ? endpoint : { ...endpoint, info: { ...endpoint.info, user: role, password: 'x' } };
      },
    };
    const { conditions } = await runActivity(createReadinessActivities(deps).readiness, [f.m, sample]);
    const states = new Map(conditions.map(({ name, state }) => [name, state]));
    expect(states.get('long-transactions')).toBe('unknown');
    expect(states.get('sequences')).toBe('problem');
    expect(states.get('login-roles')).not.toBe('ok');
  } finally {
    await f.source.query(`DROP ROLE ${role}`);
  }
});
