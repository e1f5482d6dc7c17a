import { randomBytes } from 'node:crypto';
import { chmodSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { DefaultLogger } from '@temporalio/worker';
import { MockActivityEnvironment } from '@temporalio/testing';
import { afterEach, describe, expect, test } from 'vitest';
import { createCopyActivities } from '../../activities/copy.ts';
import { createLargeObjectActivities } from '../../activities/large-objects.ts';
import { createSchemaActivities } from '../../activities/schema.ts';
import { parsePlan } from '../../src/domain/plan.ts';
import { copyFixture, countRows, runActivity } from '../support/copy-fixture.ts';
import type { SchemaFixture } from '../support/schema-fixture.ts';
import { schemaFixture } from '../support/schema-fixture.ts';

const closing: { close(): Promise<unknown> }[] = [];
afterEach(async () => {
  for (const fixture of closing.splice(0)) await fixture.close();
});

/** A role of the same name on both servers, dropped after the databases that it owns something in. */
async function twinRole(fixture: SchemaFixture): Promise<string> {
  const role = `owner_${randomBytes(4).toString('hex')}`;
  const tell = (sql: string) => Promise.all([fixture.from.psql('postgres', sql), fixture.to.psql('postgres', sql)]);
  await tell(`CREATE ROLE ${role} LOGIN`);
  closing.push({ close: () => tell(`DROP ROLE ${role}`) });
  return role;
}

const OWNED = (role: string) => `
  CREATE SCHEMA s; ALTER SCHEMA s OWNER TO ${role};
  CREATE TABLE s.t (id int PRIMARY KEY); ALTER TABLE s.t OWNER TO ${role};
  CREATE VIEW s.v AS SELECT id FROM s.t; ALTER VIEW s.v OWNER TO ${role};
  CREATE FUNCTION s.f() RETURNS text LANGUAGE sql AS $$ SELECT 'ALTER TABLE s.t OWNER TO nobody;' $$;
  ALTER FUNCTION s.f() OWNER TO ${role};
  CREATE TYPE s.e AS ENUM ('a'); ALTER TYPE s.e OWNER TO ${role};
  CREATE SEQUENCE s.q; ALTER SEQUENCE s.q OWNER TO ${role};
  GRANT SELECT ON s.t TO PUBLIC; GRANT USAGE ON SCHEMA s TO PUBLIC; REVOKE EXECUTE ON FUNCTION s.f() FROM PUBLIC;
  ALTER DEFAULT PRIVILEGES FOR ROLE ${role} IN SCHEMA s GRANT SELECT ON TABLES TO PUBLIC;
  ALTER DEFAULT PRIVILEGES FOR ROLE ${role} REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;`;

const OWNERS = `SELECT DISTINCT pg_get_userbyid(owner) FROM (
    SELECT relowner AS owner FROM pg_class WHERE relnamespace = 's'::regnamespace
    UNION ALL SELECT proowner FROM pg_proc WHERE pronamespace = 's'::regnamespace
    UNION ALL SELECT typowner FROM pg_type WHERE typname = 'e'
    UNION ALL SELECT nspowner FROM pg_namespace WHERE nspname = 's'
    UNION ALL SELECT datdba FROM pg_database WHERE datname = current_database()) AS o`;

const GRANTS = `SELECT (SELECT count(*) FROM pg_class WHERE relnamespace = 's'::regnamespace AND relacl IS NOT NULL)
    + (SELECT count(*) FROM pg_proc WHERE pronamespace = 's'::regnamespace AND proacl IS NOT NULL)
    + (SELECT count(*) FROM pg_namespace WHERE nspname = 's' AND nspacl IS NOT NULL)
    + (SELECT count(*) FROM pg_default_acl)
    + (SELECT count(*) FROM pg_database WHERE datname = current_database() AND datacl IS NOT NULL)`;

async function migrated(
  plan: unknown,
): Promise<{ fixture: SchemaFixture; role: string; ask: (sql: string) => Promise<string> }> {
  const fixture = await schemaFixture({ plan });
  const role = await twinRole(fixture);
  // Closed in order: the database goes before the role that owns it.
  closing.unshift(fixture);
  const { m, from, to } = fixture;
  await from.psql(m.database, OWNED(role));
  await from.psql(
    'postgres',
    `ALTER DATABASE ${m.database} OWNER TO ${role}; GRANT CREATE ON DATABASE ${m.database} TO pg_monitor`,
  );
  await fixture.createDatabase();
  await fixture.copySchema();
  await fixture.restoreConstraints();
  expect((await fixture.readReport()).warnings).toEqual([]);
  await fixture.finish();
  return { fixture, role, ask: (sql) => to.psql(m.database, sql) };
}

describe('the schema', () => {
  test('comes with owners and grants when nothing else is said', async () => {
    const { role, ask } = await migrated({});
    expect(await ask(OWNERS)).toBe(role);
    expect(await ask(GRANTS)).toBe('6');
  });

  test('comes without owners when the plan says so, and with everything else', async () => {
    const { ask } = await migrated({ owners: false });
    expect(await ask(OWNERS)).toBe('postgres');
    expect(await ask(`SELECT s.f()`)).toBe('ALTER TABLE s.t OWNER TO nobody;');
    expect(await ask(`SELECT has_table_privilege('pg_monitor', 's.t', 'SELECT')`)).toBe('t');
  });

  test('comes without grants when the plan says so, and with its owners', async () => {
    const { role, ask } = await migrated({ privileges: false });
    expect(await ask(OWNERS)).toBe(role);
    expect(await ask(GRANTS)).toBe('0');
  });
});

test('large objects come without owners and grants when the plan says so', async () => {
  const fixture = await copyFixture({
    rows: `CREATE ROLE lo_owner_${process.pid}; SELECT lo_create(1); ALTER LARGE OBJECT 1 OWNER TO lo_owner_${process.pid};
           GRANT SELECT ON LARGE OBJECT 1 TO PUBLIC; COMMENT ON LARGE OBJECT 1 IS 'kept'`,
    onTarget: `CREATE ROLE lo_owner_${process.pid}`,
  });
  const { source, target, deps } = fixture;
  const drop = `DROP OWNED BY lo_owner_${process.pid}; DROP ROLE lo_owner_${process.pid}`;
  closing.push({ close: () => Promise.all([source.query(drop), target.query(drop)]) }, fixture);
  const m = { ...fixture.m, plan: parsePlan({ owners: false, privileges: false }) };
  await runActivity(() => createLargeObjectActivities(deps).copyLargeObjects(m, 0), []);
  expect(
    await target.query(
      `SELECT pg_get_userbyid(lomowner) AS owner, lomacl::text AS acl, obj_description(oid, 'pg_largeobject') AS comment
         FROM pg_largeobject_metadata`,
    ),
  ).toEqual([{ owner: 'postgres', acl: null, comment: 'kept' }]);
});

describe('rows that an extension declares to be the user’s', () => {
  /** As pg_extension_config_dump does it in an extension's script: of the rows, only those that a person added. */
  const CONFIGURED = `CREATE EXTENSION hstore SCHEMA public; CREATE TABLE public.conf (id int PRIMARY KEY, mine boolean);
    INSERT INTO public.conf VALUES (1, false); ALTER EXTENSION hstore ADD TABLE public.conf; CREATE TABLE public.t (id int);
    UPDATE pg_extension SET extconfig = ARRAY['public.conf'::regclass::oid], extcondition = ARRAY['WHERE mine'] WHERE extname = 'hstore'`;

  test.each([
    [true, 3],
    [false, 1],
  ])('come along as extensions.tables says: %s', async (tables, rows) => {
    const fixture = await copyFixture({
      schema: CONFIGURED,
      rows: 'INSERT INTO public.conf VALUES (2, true), (3, true); INSERT INTO public.t VALUES (1)',
    });
    closing.push(fixture);
    const m = { ...fixture.m, plan: parsePlan({ extensions: { tables } }) };
    const copy = createCopyActivities(fixture.deps);
    await runActivity(() => copy.planCopy(m, 0), []);
    await runActivity(() => copy.copyTables(m, 0, 0), []);
    expect(await countRows(fixture.target, 'public.conf')).toBe(rows);
    expect(await countRows(fixture.target, 'public.t')).toBe(1);
  });
});

describe('a worker', () => {
  async function linesOf(verbose: boolean): Promise<string[]> {
    const fixture = await schemaFixture({
      sql: 'CREATE TABLE t (id int PRIMARY KEY); CREATE VIEW v AS SELECT * FROM t',
    });
    closing.push(fixture);
    await fixture.createDatabase();
    const lines: string[] = [];
    const logger = new DefaultLogger('INFO', ({ message }) => lines.push(message));
    const schema = createSchemaActivities({ ...fixture.deps, verbose });
    await runActivity(() => schema.copySchema(fixture.m, 0), [], new MockActivityEnvironment({}, { logger }));
    return lines;
  }

  test('that is verbose logs what pg_dump says and every object that it restores', async () => {
    const lines = await linesOf(true);
    expect(lines).toContain('pg_dump: reading user-defined tables');
    expect(lines).toEqual(expect.arrayContaining(['restored: TABLE public.t', 'restored: VIEW public.v']));
    expect(lines.join('\n')).not.toMatch(/password/i);
  });

  test('that is not does not', async () => {
    expect((await linesOf(false)).filter((line) => /^(pg_dump|restored):/.test(line))).toEqual([]);
  });

  test('runs the programs of PGTRANSIT_PG_BIN', async () => {
    const fixture = await schemaFixture({ sql: 'CREATE TABLE t (id int)' });
    const directory = mkdtempSync(path.join(tmpdir(), 'programs-'));
    closing.push(fixture);
    for (const program of ['pg_dump', 'pg_restore']) {
      const script = `#!/bin/sh\nunset LD_LIBRARY_PATH\nexport LD_LIBRARY_PATH='${fixture.to.env.LD_LIBRARY_PATH}'\n: > '${directory}/${program}.ran'\nexec '${fixture.to.binDir}/${program}' "$@"\n`;
      writeFileSync(path.join(directory, program), script);
      chmodSync(path.join(directory, program), 0o755);
    }
    process.env['PGTRANSIT_PG_BIN'] = directory;
    try {
      await fixture.createDatabase();
      await fixture.copySchema();
    } finally {
      delete process.env['PGTRANSIT_PG_BIN'];
    }
    for (const program of ['pg_dump', 'pg_restore'])
      expect(existsSync(path.join(directory, `${program}.ran`))).toBe(true);
    rmSync(directory, { recursive: true });
  });
});
