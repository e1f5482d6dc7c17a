import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { MockActivityEnvironment } from '@temporalio/testing';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { createSchemaActivities } from '../../activities/schema.ts';
import { eventually, runActivity, besideAnother } from '../support/copy-fixture.ts';
import type { SchemaFixture, SchemaFixtureOptions } from '../support/schema-fixture.ts';
import { dumpedSchema, fixtureSql, schemaFixture, warningsOf } from '../support/schema-fixture.ts';

let fixture: SchemaFixture | undefined;
afterEach(async () => {
  vi.unstubAllEnvs();
  await fixture?.close();
  fixture = undefined;
});

/** A source with this schema, and a target with the database and its ledger. */
async function prepared(options: SchemaFixtureOptions): Promise<SchemaFixture> {
  fixture = await schemaFixture(options);
  await fixture.createDatabase();
  return fixture;
}

describe('createDatabase', () => {
  test('makes it with the locale of the source and answers a second time that it was there', async () => {
    fixture = await schemaFixture();
    const { from, to, m } = fixture;
    expect(await fixture.createDatabase()).toEqual({ created: true });
    expect(await fixture.createDatabase()).toEqual({ created: false });
    const locale = 'SELECT encoding, datcollate, datctype FROM pg_database WHERE datname = current_database()';
    expect(await to.psql(m.database, locale)).toBe(await from.psql(m.database, locale));
    expect(await warningsOf(fixture)).toBe('');
  });

  test('does it once when two attempts run at the same time', async () => {
    const f = (fixture = await schemaFixture());
    await besideAnother(() => f.createDatabase());
    expect(await f.to.psql(f.m.database, 'SELECT count(*) FROM pgtransit.migration')).toBe('1');
  });

  test('goes on after dying between the database and the ledger, and says where an existing one differs', async () => {
    fixture = await schemaFixture();
    await fixture.to.psql('postgres', `CREATE DATABASE ${fixture.m.database} TEMPLATE template0 LC_CTYPE 'C'`);
    expect(await fixture.createDatabase()).toEqual({ created: false });
    expect(await warningsOf(fixture)).toContain('LC_CTYPE C instead of C.UTF-8');
  });

  test.each([
    ['CREATE TABLE public.t ()', 'relation "t"'],
    ['CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$', 'function "f"'],
    ['CREATE SCHEMA s', 'schema "s"'],
    [`SELECT lo_create(4711)`, 'large object "4711"'],
  ])('refuses a target database after %s', async (sql, object) => {
    fixture = await schemaFixture();
    await fixture.to.psql('postgres', `CREATE DATABASE ${fixture.m.database} TEMPLATE template0`);
    await fixture.to.psql(fixture.m.database, sql);
    await expect(fixture.createDatabase()).rejects.toMatchObject({ type: 'TargetNotEmpty', details: { object } });
    expect(await fixture.to.psql(fixture.m.database, `SELECT to_regnamespace('pgtransit') IS NULL`)).toBe('t');
  });

  test('takes a target database in which only an extension was installed', async () => {
    fixture = await schemaFixture();
    await fixture.to.psql('postgres', `CREATE DATABASE ${fixture.m.database} TEMPLATE template0`);
    await fixture.to.psql(fixture.m.database, 'CREATE EXTENSION hstore');
    expect(await fixture.createDatabase()).toEqual({ created: false });
  });

  test('takes the schema of such an extension as it is there, and puts into it what the source has in it', async () => {
    const extension = 'CREATE SCHEMA tools; CREATE EXTENSION hstore SCHEMA tools';
    fixture = await schemaFixture({ sql: `${extension}; CREATE TABLE tools.t (tags tools.hstore)` });
    await fixture.to.psql('postgres', `CREATE DATABASE ${fixture.m.database} TEMPLATE template0`);
    await fixture.to.psql(fixture.m.database, extension);
    await fixture.createDatabase();
    await fixture.copySchema();
    expect(await fixture.to.psql(fixture.m.database, `SELECT to_regclass('tools.t')`)).toBe('tools.t');
  });

  test('refuses a target database that belongs to another migration', async () => {
    const f = await prepared({});
    const other = { ...f.m, id: 'ffffffffffff', workflowId: 'other' };
    await expect(f.createDatabase(other)).rejects.toMatchObject({ type: 'AnotherMigration' });
  });

  test('makes none where the plan forbids it', async () => {
    fixture = await schemaFixture({ plan: { createDatabases: false } });
    await expect(fixture.createDatabase()).rejects.toThrow(fixture.m.database);
  });
});

describe('copySchema, restoreConstraints and finish', () => {
  test.each([14, 15, 17])('bring over all of an awkward schema, from %i to 18', async (source) => {
    const f = await prepared({ source, sql: await fixtureSql('schema') });
    await f.copySchema();
    await f.restoreConstraints();
    await f.refreshMaterializedViews();
    expect(await f.readReport()).toMatchObject({ warnings: [] });
    expect(await f.finish()).toEqual({ warnings: [] });
    const [left, right] = [
      await dumpedSchema(f.to, f.from, f.m.database),
      await dumpedSchema(f.to, f.to, f.m.database),
    ];
    expect(right).toBe(left);
    const states = `SELECT tgrelid::regclass, tgname, tgenabled FROM pg_trigger
      WHERE tgname !~ '_ConstraintTrigger_' ORDER BY tgrelid::regclass::text, tgname`;
    expect(await f.to.psql(f.m.database, states)).toBe(await f.from.psql(f.m.database, states));
    expect(await f.to.psql(f.m.database, 'SELECT count(*) FROM app.ddl_log')).toBe('0');
  });

  test('bring a function whose body holds the header of another entry', async () => {
    const body = (text: string) =>
      `CREATE OR REPLACE FUNCTION f() RETURNS text LANGUAGE sql AS $$ SELECT '\n${text}\n'::text $$;`;
    const sql = `${body('')} CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int REFERENCES t);`;
    const f = await prepared({ sql });
    await f.copySchema();
    const target = await f.open('target');
    const rows = await target.query<{ header: string }>(
      `SELECT format('-- TOC entry %s (class %s OID %s)', dump_id, class_oid, oid) AS header FROM pgtransit.entry WHERE dump_id > 0`,
    );
    await target.query('DROP TABLE public.u, public.t; DROP FUNCTION public.f; DELETE FROM pgtransit.entry');
    // Replaced, not made anew: it keeps its oid and its number in the archive.
    await f.from.psql(
      f.m.database,
      body(rows.map(({ header }) => `--\n${header}\n-- Name: x; Type: TABLE; Schema: y; Owner: z`).join('\n')),
    );
    await f.copySchema();
    await f.restoreConstraints();
    await f.finish();
    expect(await dumpedSchema(f.to, f.to, f.m.database)).toBe(await dumpedSchema(f.to, f.from, f.m.database));
  });

  test('leave behind what is ours on the source, and say which subscriptions and indexes stay there', async () => {
    const f = await prepared({
      sql: `CREATE SCHEMA pgtransit; CREATE TABLE pgtransit.unit (id int); CREATE TABLE t (id int);
        INSERT INTO t VALUES (1), (1);
        CREATE PUBLICATION pgtransit_0123456789ab_g0 FOR TABLE t; CREATE PUBLICATION pgtransit_backup FOR TABLE t;
        CREATE SUBSCRIPTION "Their Sub" CONNECTION 'host=nowhere' PUBLICATION p WITH (connect = false);`,
    });
    const source = await f.open('source');
    await source.query('CREATE UNIQUE INDEX CONCURRENTLY broken ON public.t (id)').catch(() => undefined);
    await f.copySchema();
    await f.restoreConstraints();
    expect(await warningsOf(f)).toContain('"Their Sub"');
    expect(await warningsOf(f)).toContain('public.broken');
    await f.finish();
    expect(await f.to.psql(f.m.database, 'SELECT pubname FROM pg_publication')).toBe('pgtransit_backup');
    expect(
      await f.to.psql(
        f.m.database,
        `SELECT count(*) FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())`,
      ),
    ).toBe('0');
    expect(await f.to.psql(f.m.database, `SELECT to_regnamespace('pgtransit') IS NULL`)).toBe('t');
    await source.query('ALTER SUBSCRIPTION "Their Sub" SET (slot_name = NONE)');
    await source.query('DROP SUBSCRIPTION "Their Sub"');
  });

  test('bring a database whose owner dropped the schema public', async () => {
    const f = await prepared({ sql: 'DROP SCHEMA public; CREATE SCHEMA s; CREATE TABLE s.t ();' });
    await f.copySchema();
    expect(await f.to.psql(f.m.database, `SELECT to_regnamespace('public') IS NULL`)).toBe('t');
  });
});

describe('copySchema', () => {
  test('names the object that fails, and goes on from there when it was mended', async () => {
    const f = await prepared({
      sql: `CREATE EXTENSION hstore; CREATE TABLE a (id int); CREATE TABLE b (h hstore); CREATE TABLE c (id int);`,
      plan: { extensions: { exclude: ['hstore'] } },
    });
    await expect(f.copySchema()).rejects.toMatchObject({ type: 'SchemaFailed', details: { object: 'TABLE public.b' } });
    expect(
      await f.to.psql(f.m.database, `SELECT label FROM pgtransit.entry WHERE state = 'done' ORDER BY 1`),
    ).toContain('TABLE public.a');
    await f.to.psql(f.m.database, 'CREATE EXTENSION hstore');
    const entries = await f.copySchema();
    expect(
      await f.to.psql(
        f.m.database,
        `SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace`,
      ),
    ).toBe('a b c');
    expect(await f.copySchema()).toEqual(entries);
  });

  test('does each thing once when two attempts run at the same time', async () => {
    const f = await prepared({ sql: 'CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int REFERENCES a);' });
    expect(await besideAnother(() => f.copySchema())).toEqual(await f.copySchema());
    await besideAnother(() => f.restoreConstraints());
    expect(
      await f.to.psql(
        f.m.database,
        `SELECT count(*) FROM pg_constraint WHERE contype IN ('p', 'f') AND connamespace = 'public'::regnamespace`,
      ),
    ).toBe('2');
  });

  test('keeps an object whose owner or grantee the target lacks, and says so', async () => {
    const role = `missing_${Date.now()}`;
    const f = await prepared({
      sql: `CREATE ROLE ${role}; CREATE ROLE ${role}_2; CREATE TABLE t (id int PRIMARY KEY); ALTER TABLE t OWNER TO ${role};
        CREATE TABLE u (id int); GRANT SELECT ON u TO ${role}; GRANT INSERT ON u TO pg_monitor;`,
    });
    await f.copySchema();
    await f.restoreConstraints();
    const warnings = await warningsOf(f);
    expect(warnings).toMatch(new RegExp(`TABLE public\\.t keeps another owner: role "${role}" does not exist`));
    expect(warnings).toMatch(new RegExp(`GRANT SELECT ON TABLE public\\.u TO ${role}`));
    expect(await f.to.psql(f.m.database, `SELECT has_table_privilege('pg_monitor', 'public.u', 'INSERT')`)).toBe('t');
    await f.from.psql(f.m.database, `DROP OWNED BY ${role}; DROP ROLE ${role}, ${role}_2`);
  });

  test('sees what the snapshot of the generation sees, and no more', async () => {
    const f = await prepared({ method: 'dump', sql: 'CREATE TABLE before (id int);' });
    const holder = await f.open('source');
    await holder.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
    const { snapshot } = await holder.one<{ snapshot: string }>('SELECT pg_export_snapshot() AS snapshot');
    await f.to.psql(
      f.m.database,
      `INSERT INTO pgtransit.generation VALUES (0, 'n', 'open', false, NULL, '${snapshot}', ${holder.pid}, '1', 1)`,
    );
    await f.from.psql(f.m.database, 'CREATE TABLE after (id int)');
    await f.copySchema();
    expect(
      await f.to.psql(
        f.m.database,
        `SELECT to_regclass('public.before') IS NOT NULL, to_regclass('public.after') IS NOT NULL`,
      ),
    ).toBe('t|f');
  });

  test('fails with SnapshotLost when nobody holds the snapshot any more', async () => {
    const f = await prepared({ method: 'dump', sql: 'CREATE TABLE t (id int);' });
    await expect(f.copySchema()).rejects.toMatchObject({ type: 'SnapshotLost' });
    await f.to.psql(
      f.m.database,
      `INSERT INTO pgtransit.generation VALUES (0, 'n', 'open', false, NULL, '00000003-0000001B-1', 1, '1', 1)`,
    );
    await expect(f.copySchema()).rejects.toMatchObject({ type: 'SnapshotLost' });
    expect(await f.to.psql(f.m.database, 'SELECT count(*) FROM pgtransit.entry')).toBe('0');
  });

  test('ends pg_dump at once when it is cancelled, leaves no file, and shows no password to the machine', async () => {
    const f = await prepared({ sql: 'CREATE TABLE t (id int);' });
    const blocker = await f.open('source');
    await blocker.query('BEGIN; LOCK TABLE public.t');
    // Other tests have theirs elsewhere.
    const own = mkdtempSync(path.join(tmpdir(), 'pgtransit-test-'));
    vi.stubEnv('TMPDIR', own);
    const secret = 'pass-word-of-the-test';
    const endpoint: typeof f.deps.endpoint = (reference, server) => {
      const { info } = f.deps.endpoint(reference, server);
      return { server, info: { ...info, password: secret } };
    };
    const environment = new MockActivityEnvironment();
    const activities = createSchemaActivities({ ...f.deps, endpoint });
    const running = runActivity(() => activities.copySchema(f.m, 0), [], environment);
    const outcome = running.catch((error: unknown) => error);
    const dumping = async () =>
      (await f.from.psql(
        f.m.database,
        `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name ~ '^pgtransit_' AND wait_event_type = 'Lock'`,
      )) !== '0';
    await eventually('pg_dump waits for the lock', dumping);
    expect(commandLines().filter((line) => line.includes(secret))).toEqual([]);
    expect(commandLines().some((line) => line.includes('pg_dump') && line.includes('--snapshot='))).toBe(true);
    environment.cancel();
    expect(await outcome).toBeInstanceOf(Error);
    await eventually('pg_dump is gone', async () => !(await dumping()));
    expect(readdirSync(own)).toEqual([]);
    rmSync(own, { recursive: true });
  });
});

function commandLines(): string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
      } catch {
        return '';
      }
    });
}

describe('restoreConstraints', () => {
  const parentAndChild = `CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE c (id int PRIMARY KEY, p int CONSTRAINT c_p REFERENCES p);`;

  test('names the object that fails, keeps what is done, and goes on when it was mended', async () => {
    const f = await prepared({
      sql: `${parentAndChild} CREATE TABLE late (id int UNIQUE); GRANT SELECT ON late TO PUBLIC;`,
    });
    await f.copySchema();
    await f.to.psql(f.m.database, 'INSERT INTO late VALUES (1), (1)');
    await expect(f.restoreConstraints()).rejects.toMatchObject({
      type: 'ConstraintFailed',
      details: { object: 'CONSTRAINT public.late late_id_key', sqlstate: '23505' },
    });
    await f.to.psql(f.m.database, 'TRUNCATE late');
    await f.restoreConstraints();
    expect(
      await f.to.psql(f.m.database, `SELECT count(*) FROM pgtransit.entry WHERE state = 'todo' AND stage <> 'last'`),
    ).toBe('0');
    await f.restoreConstraints();
  });
});

describe('refreshMaterializedViews', () => {
  test('fills each after those it reads, leaves the unfilled unfilled, and names one that fails', async () => {
    const f = await prepared({
      sql: `CREATE TABLE t (id int); INSERT INTO t VALUES (1);
        CREATE MATERIALIZED VIEW z AS SELECT id FROM t; CREATE VIEW m AS SELECT id FROM z; CREATE MATERIALIZED VIEW a AS SELECT count(*) AS n FROM m;
        CREATE MATERIALIZED VIEW empty AS SELECT 1 AS x WITH NO DATA; CREATE MATERIALIZED VIEW b_bad AS SELECT 1 / id AS x FROM t;`,
    });
    await f.copySchema();
    await f.restoreConstraints();
    await f.to.psql(f.m.database, 'INSERT INTO t VALUES (1), (0)');
    await expect(f.refreshMaterializedViews()).rejects.toMatchObject({
      type: 'ConstraintFailed',
      message: expect.stringContaining('division by zero') as string,
      details: { object: 'public.b_bad' },
    });
    const populated = `SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relkind = 'm' AND relispopulated`;
    expect(await f.to.psql(f.m.database, populated)).toBe('a z');
    expect(await f.to.psql(f.m.database, 'SELECT n FROM a')).toBe('2');
    await f.to.psql(f.m.database, 'DELETE FROM t WHERE id = 0');
    expect(await f.refreshMaterializedViews()).toEqual({ refreshed: 1 });
    expect(await f.to.psql(f.m.database, populated)).toBe('a b_bad z');

    // Before a cutover: what has changed since, and nothing that was left unfilled.
    await f.to.psql(f.m.database, 'INSERT INTO t VALUES (5), (6)');
    expect(await f.refreshMaterializedViews()).toEqual({ refreshed: 0 });
    expect(await f.refreshMaterializedViews('filled')).toEqual({ refreshed: 3 });
    expect(await f.to.psql(f.m.database, 'SELECT n FROM a')).toBe('3');
    expect(await f.to.psql(f.m.database, populated)).toBe('a b_bad z');
  });
});
