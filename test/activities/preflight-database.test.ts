import { randomBytes } from 'node:crypto';
import { beforeAll, describe, expect, it } from 'vitest';
import type { PostgresAccess } from '../../lab/postgres-access.ts';
import { createDatabase, useServer } from '../support/servers.ts';
import type { PlanInput, Servers } from './preflight-support.ts';
import { errorsOf, inspectDatabase, migrationOf, recheck, withCode } from './preflight-support.ts';

let source: PostgresAccess;
let target: PostgresAccess;
let servers: Servers;

beforeAll(async () => {
  source = await useServer(17);
  target = await useServer(18);
  servers = { source: source.uri(), target: target.uri() };
});

const REPLICATION = { method: 'replication' };
const DUMP = { method: 'dump' };

/** Names of one test file on servers that others use too. */
const unique = randomBytes(4).toString('hex');

const newDatabase = async (sql = ''): Promise<string> => {
  const { name } = await createDatabase(source.uri());
  if (sql !== '') await source.psql(name, sql);
  return name;
};

const SOUND = `CREATE TABLE sound (id int PRIMARY KEY, v text); INSERT INTO sound VALUES (1, 'a');
  CREATE TABLE "Mixed Case" ("Id" int PRIMARY KEY); CREATE SEQUENCE counter;`;

describe.concurrent('a sound database', () => {
  it('has no finding at all, and is replicated', async () => {
    const database = await newDatabase(SOUND);
    const inspection = await inspectDatabase(servers, database);
    expect(inspection).toMatchObject({ database, method: 'replication', tables: 2, findings: [] });
    expect(inspection.reason).toBe('Nothing is in the way of replication.');
    expect(inspection.bytes).toBeGreaterThan(0);
  });

  it.each([14, 15, 18])('of PostgreSQL %i has none either', async (major) => {
    const server = await useServer(major);
    const { name } = await createDatabase(server.uri());
    await server.psql(name, SOUND);
    expect((await inspectDatabase({ source: server.uri(), target: servers.target }, name)).findings).toEqual(
      major === 18 ? expect.anything() : [],
    );
  });
});

interface Liar {
  code: string;
  /** Before. */
  sound?: string;
  /** Done to the source. */
  broken?: string;
  /** Done to a database of the same name on the target. */
  onTarget?: string;
  /** The objects that the findings name; `itself` is the database. */
  objects: (string | null)[];
  plan?: PlanInput;
  severity?: string;
  /** Part of the sentence. */
  says?: RegExp;
  remedy?: RegExp;
}

const LIARS: Liar[] = [
  {
    code: 'replica-identity',
    sound: 'CREATE TABLE parts (id int) PARTITION BY RANGE (id)',
    broken: `CREATE TABLE no_key (a int); CREATE TABLE "No Thing" (a int PRIMARY KEY); ALTER TABLE "No Thing" REPLICA IDENTITY NOTHING;
      CREATE TABLE late (a int PRIMARY KEY DEFERRABLE); CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
      CREATE TABLE gone (a int NOT NULL); CREATE UNIQUE INDEX gone_a ON gone (a); ALTER TABLE gone REPLICA IDENTITY USING INDEX gone_a; DROP INDEX gone_a;`,
    objects: ['public.no_key', 'public."No Thing"', 'public.late', 'public.parts_1', 'public.gone'],
    plan: REPLICATION,
    remedy: /ALTER TABLE "public"\.".*" REPLICA IDENTITY (FULL|DEFAULT);/,
  },
  {
    code: 'replica-identity-full',
    sound: `CREATE TABLE keyed (id int PRIMARY KEY, j json); ALTER TABLE keyed REPLICA IDENTITY FULL;
      CREATE TYPE mood AS ENUM ('ok'); CREATE DOMAIN posint AS int; CREATE TYPE pair AS (a int, b text);
      CREATE TABLE fine (a varchar, b cidr, c mood, d mood[], e posint, f pair, g int4range, h regclass, i "char", j jsonb, k oidvector);
      ALTER TABLE fine REPLICA IDENTITY FULL;`,
    broken: `CREATE TYPE odd AS (a int, b point); CREATE DOMAIN doc AS json;
      CREATE TABLE t_json (a json); CREATE TABLE t_xml (a xml[]); CREATE TABLE t_odd (a odd); CREATE TABLE t_doc (a doc); CREATE TABLE t_box (a box);
      ALTER TABLE t_json REPLICA IDENTITY FULL; ALTER TABLE t_xml REPLICA IDENTITY FULL; ALTER TABLE t_odd REPLICA IDENTITY FULL;
      ALTER TABLE t_doc REPLICA IDENTITY FULL; ALTER TABLE t_box REPLICA IDENTITY FULL;`,
    objects: ['public.t_json', 'public.t_xml', 'public.t_odd', 'public.t_doc', 'public.t_box'],
    plan: REPLICATION,
  },
  {
    code: 'replica-identity-generated',
    broken: `CREATE TABLE g (a int, b int GENERATED ALWAYS AS (a * 2) STORED PRIMARY KEY)`,
    objects: ['public.g'],
    plan: REPLICATION,
  },
  {
    code: 'hash-partition',
    sound: `CREATE TYPE mood AS ENUM ('sad', 'ok')`,
    broken: `CREATE TABLE h (m mood PRIMARY KEY) PARTITION BY HASH (m); CREATE TABLE h0 PARTITION OF h FOR VALUES WITH (MODULUS 1, REMAINDER 0)`,
    objects: ['public.h0'],
    plan: REPLICATION,
  },
  {
    code: 'leftovers',
    broken: `CREATE PUBLICATION pgtransit_aaaaaaaaaaaa_g0 FOR TABLE sound`,
    objects: ['"pgtransit_aaaaaaaaaaaa_g0"'],
    remedy: /DROP PUBLICATION "pgtransit_aaaaaaaaaaaa_g0";/,
  },
  {
    code: 'leftovers',
    onTarget: `CREATE SCHEMA pgtransit; CREATE TABLE pgtransit.migration (id text, workflow_id text); INSERT INTO pgtransit.migration VALUES ('bbbbbbbbbbbb', 'blue green')`,
    objects: ['pgtransit'],
    says: /workflow "blue green"/,
    remedy: /temporal workflow cancel -w 'blue green' .* DROP SCHEMA pgtransit CASCADE;/,
  },
  { code: 'leftovers', onTarget: 'CREATE SCHEMA pgtransit', objects: ['pgtransit'], says: /does not say whose/ },
  {
    code: 'target-not-empty',
    onTarget: 'CREATE TABLE mine (a int); CREATE VIEW seen AS SELECT 1',
    objects: ['itself'],
    says: /public\.mine, public\.seen/,
    remedy: /DROP DATABASE/,
  },
  {
    code: 'target-database-missing',
    plan: { createDatabases: false },
    objects: ['itself'],
  },
  {
    code: 'filter-matches-nothing',
    plan: { tables: { include: ['sound', 'public.nothing', 'otherdb.public.nothing'] } },
    objects: ['public.nothing'],
    says: /tables.include/,
  },
  {
    code: 'filter-matches-nothing',
    plan: { tables: { exclude: ['nothing'] } },
    objects: ['nothing'],
    severity: 'warning',
  },
  {
    code: 'check-not-satisfied',
    sound: `CREATE SCHEMA s; CREATE TABLE s.codes (c text); INSERT INTO s.codes VALUES ('a');
      CREATE FUNCTION s.fine(int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true'; CREATE TABLE s.changed (v int CONSTRAINT is_fine CHECK (s.fine(v))); INSERT INTO s.changed VALUES (-1);
      CREATE FUNCTION s.known(text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RETURN EXISTS (SELECT FROM s.codes WHERE c = $1); END $$;
      CREATE TABLE s.looked (c text CHECK (s.known(c))); INSERT INTO s.looked VALUES ('a');
      CREATE DOMAIN s.good AS int CHECK (s.fine(VALUE)); CREATE TABLE s.domained (v s.good); INSERT INTO s.domained VALUES (-1);`,
    broken: `CREATE OR REPLACE FUNCTION s.fine(int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT $1 > 0';
      CREATE OR REPLACE FUNCTION s.known(text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RETURN EXISTS (SELECT FROM codes WHERE c = $1); END $$`,
    objects: ['s.changed', 's.looked', 's.domained'],
    plan: DUMP,
    says: /cannot be copied/,
  },
  {
    code: 'generated-differs',
    sound: `CREATE FUNCTION public.calc(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
      CREATE TABLE g (a int PRIMARY KEY, b int GENERATED ALWAYS AS (public.calc(a)) STORED); INSERT INTO g VALUES (1)`,
    broken: `CREATE OR REPLACE FUNCTION public.calc(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 3'`,
    objects: ['public.g'],
    says: /"b"/,
  },
  {
    code: 'matview-not-refreshable',
    sound: `CREATE TABLE base (a int PRIMARY KEY, b int); INSERT INTO base VALUES (10, 2); CREATE MATERIALIZED VIEW ratio AS SELECT a / b AS q FROM base ORDER BY 1 LIMIT 5`,
    broken: 'INSERT INTO base VALUES (1, 0)',
    objects: ['public.ratio'],
    says: /division by zero/,
    remedy: /WITH NO DATA/,
  },
  {
    code: 'index-not-rebuildable',
    sound: `CREATE TABLE map (k int PRIMARY KEY, v text); INSERT INTO map VALUES (1, 'one');
      CREATE FUNCTION look(int) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN (SELECT v FROM public.map WHERE k = $1); END $$;
      CREATE TABLE ix (k int PRIMARY KEY); INSERT INTO ix VALUES (1); CREATE INDEX ix_look ON ix (look(k)); CREATE INDEX ix_part ON ix (k) WHERE look(k) = 'one'`,
    broken: `CREATE OR REPLACE FUNCTION look(int) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN (SELECT v FROM map WHERE k = $1); END $$`,
    objects: ['public.ix_look', 'public.ix_part'],
  },
  {
    code: 'foreign-key-disabled',
    sound: `CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE c (id int PRIMARY KEY, p int CONSTRAINT c_p REFERENCES p); INSERT INTO p VALUES (1); INSERT INTO c VALUES (1, 1);
      ALTER TABLE c DISABLE TRIGGER ALL`,
    broken: 'INSERT INTO c VALUES (2, 999)',
    objects: ['public.c'],
    severity: 'warning',
  },
  {
    code: 'foreign-key-excluded',
    broken: 'CREATE TABLE c (id int PRIMARY KEY, s int REFERENCES sound)',
    plan: { tables: { exclude: ['sound'] } },
    objects: ['public.c'],
    severity: 'warning',
  },
  {
    code: 'invalid-index',
    broken: `CREATE INDEX half ON sound (v); UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'half'::regclass`,
    objects: ['public.half'],
    severity: 'warning',
  },
  {
    code: 'firing-trigger',
    sound: `CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER t BEFORE INSERT ON sound FOR EACH ROW EXECUTE FUNCTION f()`,
    broken: 'ALTER TABLE sound ENABLE ALWAYS TRIGGER t',
    objects: ['public.sound'],
    severity: 'warning',
  },
  { code: 'unlogged-table', broken: 'CREATE UNLOGGED TABLE u (a int)', objects: ['public.u'], severity: 'warning' },
  {
    code: 'unlogged-table',
    broken: 'CREATE UNLOGGED TABLE u (a int)',
    objects: ['public.u'],
    severity: 'info',
    plan: DUMP,
  },
  { code: 'large-object', broken: 'SELECT lo_create(0)', objects: [null], severity: 'warning' },
  {
    code: 'all-tables-publication',
    broken: 'CREATE PUBLICATION everything FOR ALL TABLES',
    objects: ['"everything"'],
    severity: 'info',
  },
  {
    code: 'event-trigger',
    broken: `CREATE FUNCTION e() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE EVENT TRIGGER watch ON ddl_command_end EXECUTE FUNCTION e()`,
    objects: ['"watch"'],
    severity: 'info',
  },
  {
    code: 'subscription',
    broken: `CREATE SUBSCRIPTION elsewhere CONNECTION 'host=127.0.0.1 port=1' PUBLICATION p WITH (connect = false)`,
    objects: ['"elsewhere"'],
    severity: 'warning',
  },
  {
    code: 'foreign-table',
    broken: `CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; CREATE FOREIGN TABLE far (a int) SERVER s`,
    objects: ['public.far'],
    severity: 'info',
  },
  {
    code: 'library-function',
    broken: `CREATE FUNCTION c_fun() RETURNS trigger LANGUAGE c AS '$libdir/refint', 'check_primary_key'`,
    objects: ['public.c_fun'],
    severity: 'warning',
  },
  {
    code: 'catalog-object',
    broken: `SET allow_system_table_mods = on; CREATE FUNCTION pg_catalog.mine_${unique}() RETURNS int LANGUAGE sql AS 'SELECT 1'`,
    objects: [`pg_catalog.mine_${unique}`],
    severity: 'warning',
  },
];

describe('inspectDatabase, once something is broken', () => {
  it.concurrent.each(LIARS.map((liar, i) => [`${liar.code} ${i}`, liar] as const))(
    'says %s',
    async (_, { code, sound = '', broken, onTarget, objects, plan = {}, severity = 'error', says, remedy }) => {
      const database = await newDatabase(`${SOUND} ${sound}`);
      const green = await inspectDatabase(servers, database, 'method' in plan ? { method: plan['method'] } : {});
      expect(withCode(green.findings, code).filter((finding) => finding.severity === severity)).toEqual([]);
      if (broken !== undefined) await source.psql(database, broken);
      if (onTarget !== undefined) {
        await createDatabase(target.uri(), database);
        await target.psql(database, onTarget);
      }
      const found = withCode((await inspectDatabase(servers, database, plan)).findings, code);
      const expected = objects.map((object) => (object === 'itself' ? `"${database}"` : object));
      expect(found.map(({ object }) => object).sort()).toEqual(expected.sort());
      for (const finding of found) {
        expect(finding).toMatchObject({ severity, database });
        expect(finding.unknown).toBeUndefined();
        if (says !== undefined) expect(finding.message).toMatch(says);
        if (remedy !== undefined) expect(finding.remedy).toMatch(remedy);
      }
    },
  );

  it('names an extension that the target lacks, has in an older version, or cannot bring into order', async () => {
    const database = await newDatabase('CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE EXTENSION pg_trgm');
    expect(withCode((await inspectDatabase(servers, database)).findings, 'extension')).toEqual([]);
    // As if the source had others: what is compared are names and versions.
    await source.psql(
      database,
      `UPDATE pg_extension SET extname = 'not_there_at_all' WHERE extname = 'hstore';
       UPDATE pg_extension SET extversion = '99' WHERE extname = 'citext'`,
    );
    await createDatabase(target.uri(), database);
    await target.psql(database, `CREATE EXTENSION pg_trgm VERSION '1.5'`);
    const found = withCode((await inspectDatabase(servers, database)).findings, 'extension');
    expect(found.map(({ object, severity }) => [object, severity])).toEqual([
      ['"citext"', 'warning'],
      ['"not_there_at_all"', 'error'],
      ['"pg_trgm"', 'error'],
    ]);
    expect(found[2]?.message).toMatch(/has version 1\.6 on the source, but the target gives the older 1\.5/);
    const excluded = { extensions: { exclude: ['not_there_at_all', 'pg_trgm'] } };
    expect(errorsOf(withCode((await inspectDatabase(servers, database, excluded)).findings, 'extension'))).toEqual([]);
  });

  it('refuses an extension whose tables are something else, and a language that the target lacks', async () => {
    const database = await newDatabase('CREATE EXTENSION hstore; CREATE LANGUAGE strange HANDLER plpgsql_call_handler');
    await source.psql(database, `UPDATE pg_extension SET extname = 'timescaledb' WHERE extname = 'hstore'`);
    const { findings } = await inspectDatabase(servers, database);
    expect(withCode(findings, 'unsupported-extension')).toMatchObject([{ severity: 'error', object: '"timescaledb"' }]);
    expect(withCode(findings, 'language')).toMatchObject([{ severity: 'error', object: '"strange"' }]);
  });

  it('asks the target itself whether it has a locale', async () => {
    const database = await newDatabase(`CREATE COLLATION "Fine One" (provider = libc, locale = 'C');
      CREATE COLLATION far (provider = libc, locale = 'C'); CREATE COLLATION built (provider = builtin, locale = 'C.UTF-8')`);
    expect(withCode((await inspectDatabase(servers, database)).findings, 'locale')).toEqual([]);
    await source.psql(
      database,
      `UPDATE pg_collation SET collcollate = 'xx_YY', collctype = 'xx_YY' WHERE collname = 'far'`,
    );
    const found = withCode((await inspectDatabase(servers, database)).findings, 'locale');
    expect(found).toMatchObject([{ severity: 'error', server: 'target', object: 'public.far' }]);
    expect(found[0]?.message).toMatch(/libc locale xx_YY/);
  });

  it('knows that 18 refuses an UPDATE of a table whose full replica identity has a generated column', async () => {
    const server = target;
    const { name } = await createDatabase(server.uri());
    const older = await useServer(15);
    const full = `CREATE TABLE f (a int, b int GENERATED ALWAYS AS (a * 2) STORED); ALTER TABLE f REPLICA IDENTITY FULL; INSERT INTO f VALUES (1);
      CREATE PUBLICATION p FOR TABLE f`;
    await server.psql(name, full);
    await expect(server.psql(name, 'UPDATE f SET a = 2')).rejects.toThrow(/unpublished generated columns/);
    const from = { source: server.uri(), target: servers.source };
    expect(
      withCode((await inspectDatabase(from, name, REPLICATION)).findings, 'replica-identity-generated'),
    ).toMatchObject([{ severity: 'error', object: 'public.f' }]);
    const { name: before } = await createDatabase(older.uri());
    await older.psql(before, `${full}; UPDATE f SET a = 2`);
    const { findings } = await inspectDatabase({ ...servers, source: older.uri() }, before, REPLICATION);
    expect(withCode(findings, 'replica-identity-generated')).toEqual([]);
  });

  it('finds generated values that differ on 14 too, which notes their dependencies elsewhere', async () => {
    const server = await useServer(14);
    const { name } = await createDatabase(server.uri());
    await server.psql(
      name,
      `CREATE FUNCTION calc(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
       CREATE TABLE g (a int PRIMARY KEY, b int GENERATED ALWAYS AS (calc(a)) STORED); INSERT INTO g VALUES (1);
       CREATE OR REPLACE FUNCTION calc(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 3'`,
    );
    const { findings } = await inspectDatabase({ ...servers, source: server.uri() }, name);
    expect(withCode(findings, 'generated-differs')).toMatchObject([{ severity: 'error', object: 'public.g' }]);
  });

  it('refuses an encoding in which not every text can be written', async () => {
    const database = await newDatabase();
    await target.psql('postgres', `CREATE DATABASE ${database} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'`);
    const found = withCode((await inspectDatabase(servers, database)).findings, 'target-differs');
    expect(errorsOf(found)).toMatchObject([{ server: 'target' }]);
    expect(found[0]?.message).toMatch(/LATIN1 on the target and UTF8 on the source/);
  });

  it('names slot and holder of a dead migration, with the SQL that ends them', async () => {
    const database = await newDatabase(SOUND);
    const slot = `pgtransit_${unique}cccc_g0`;
    await source.psql(database, `SELECT pg_create_logical_replication_slot('${slot}', 'pgoutput')`);
    try {
      const found = withCode((await inspectDatabase(servers, database)).findings, 'leftovers');
      expect(found).toMatchObject([{ severity: 'error', server: 'source', object: `"${slot}"` }]);
      expect(found[0]?.remedy).toContain(`SELECT pg_drop_replication_slot('${slot}');`);
    } finally {
      await source.psql(database, `SELECT pg_drop_replication_slot('${slot}')`);
    }
  });
});

describe.concurrent('the method', () => {
  it('is a dump where a table cannot be replicated, and the warning says what is lost', async () => {
    const database = await newDatabase(`${SOUND} CREATE TABLE no_key (a int)`);
    const { method, reason, findings } = await inspectDatabase(servers, database);
    expect(method).toBe('dump');
    expect(reason).toMatch(/^Replication is not possible\. public\.no_key: The table has neither a primary key/);
    expect(errorsOf(findings)).toEqual([]);
    expect(withCode(findings, 'dump-only')[0]?.message).toMatch(/is lost: .*public\.no_key/);
    expect(withCode(findings, 'replica-identity')).toMatchObject([{ severity: 'warning', object: 'public.no_key' }]);
  });

  it('needs no replica identity of tables that are excluded, and none for a dump', async () => {
    const database = await newDatabase(`${SOUND} CREATE TABLE no_key (a int)`);
    expect((await inspectDatabase(servers, database, { tables: { exclude: ['no_key'] } })).method).toBe('replication');
    expect(await inspectDatabase(servers, database, DUMP)).toMatchObject({
      method: 'dump',
      reason: 'The plan asks for it.',
      findings: [],
    });
  });
});

describe('a role that is no superuser', () => {
  const role = `plain_${unique}`;
  const as = (server: PostgresAccess): string => server.uri(undefined, { user: role, password: 'secret-word' });

  beforeAll(async () => {
    for (const server of [source, target])
      await server.psql(
        'postgres',
        `CREATE ROLE owner_${unique}; CREATE ROLE ${role} LOGIN REPLICATION CREATEDB PASSWORD 'secret-word'`,
      );
    await target.psql('postgres', `GRANT pg_create_subscription TO ${role}`);
  });

  it('gets each missing privilege by name, with the GRANT, and none once all are granted', async () => {
    const database =
      await newDatabase(`CREATE SCHEMA app; CREATE TABLE app.orders (id serial PRIMARY KEY); CREATE TABLE app.bills (id int PRIMARY KEY);
      ALTER TABLE app.orders OWNER TO owner_${unique}; GRANT SELECT ON app.bills TO ${role}; CREATE TABLE app."Mine" (id int PRIMARY KEY);
      ALTER TABLE app."Mine" OWNER TO ${role}`);
    const both = { source: as(source), target: as(target) };
    const { findings } = await inspectDatabase(both, database, REPLICATION);
    const named = errorsOf(findings).map(({ code, object }) => `${code} ${object ?? ''}`);
    expect(named.sort()).toEqual(
      [
        `create-publication "${database}"`,
        'schema-usage "app"',
        'sequence-select app.orders_id_seq',
        'table-owner app.bills',
        'table-owner app.orders',
        'table-select app.orders',
      ].sort(),
    );
    for (const { remedy } of errorsOf(findings)) await source.psql(database, remedy ?? '');
    expect(errorsOf((await inspectDatabase(both, database, REPLICATION)).findings)).toEqual([]);
    expect((await inspectDatabase(both, database)).method).toBe('replication');
  });

  it('is refused where row security would hide rows', async () => {
    const database = await newDatabase(`CREATE TABLE secret (id int PRIMARY KEY); GRANT SELECT ON secret TO ${role}`);
    const both = { ...servers, source: as(source) };
    expect(withCode((await inspectDatabase(both, database, DUMP)).findings, 'row-security')).toEqual([]);
    await source.psql(database, 'ALTER TABLE secret ENABLE ROW LEVEL SECURITY');
    const { findings } = await inspectDatabase(both, database, DUMP);
    expect(withCode(findings, 'row-security')).toMatchObject([{ severity: 'error', object: 'public.secret' }]);
  });

  it('is told of a connection limit that the copy would run into', async () => {
    const database = await newDatabase();
    const both = { ...servers, source: as(source) };
    const limits = async () => withCode((await inspectDatabase(both, database, DUMP)).findings, 'connection-limit');
    expect(await limits()).toEqual([]);
    await source.psql('postgres', `ALTER DATABASE ${database} CONNECTION LIMIT 2`);
    expect(await limits()).toMatchObject([{ severity: 'error', object: `"${database}"` }]);
    await source.psql('postgres', `ALTER DATABASE ${database} CONNECTION LIMIT 5`);
    expect(await limits()).toMatchObject([{ severity: 'warning' }]);
  });

  it('cannot apply changes on the target to a table that forces row security', async () => {
    const database = await newDatabase('CREATE TABLE t (id int PRIMARY KEY); ALTER TABLE t ENABLE ROW LEVEL SECURITY');
    const both = { source: servers.source, target: as(target) };
    const forced = async () =>
      withCode((await inspectDatabase(both, database, REPLICATION)).findings, 'forced-row-security');
    expect(await forced()).toEqual([]);
    await source.psql(database, 'ALTER TABLE t FORCE ROW LEVEL SECURITY');
    expect(await forced()).toMatchObject([{ severity: 'error', object: 'public.t' }]);
  });

  it('cannot create an extension that is for superusers, unless it is there', async () => {
    const database = await newDatabase('CREATE EXTENSION dblink; CREATE EXTENSION hstore');
    const both = { source: servers.source, target: as(target) };
    const found = async () => withCode((await inspectDatabase(both, database)).findings, 'extension');
    expect(await found()).toMatchObject([{ severity: 'error', object: '"dblink"' }]);
    await createDatabase(target.uri(), database);
    await target.psql(database, 'CREATE EXTENSION dblink');
    expect(await found()).toEqual([]);
  });

  it('may not create schemas in a database of the target that belongs to somebody else', async () => {
    const database = await newDatabase();
    await createDatabase(target.uri(), database);
    const both = { source: servers.source, target: as(target) };
    expect(withCode((await inspectDatabase(both, database)).findings, 'target-create')).toMatchObject([
      { severity: 'error' },
    ]);
    await target.psql('postgres', `GRANT CREATE ON DATABASE ${database} TO ${role}`);
    expect(withCode((await inspectDatabase(both, database)).findings, 'target-create')).toEqual([]);
  });

  it('gets "unknown" where it may not look, and that blocks', async () => {
    const database = await newDatabase(`CREATE TABLE t (id int PRIMARY KEY); GRANT SELECT ON t TO ${role}`);
    const both = { source: as(source), target: as(target) };
    const look = async (...codes: string[]) =>
      (await inspectDatabase(both, database, DUMP)).findings
        .filter((finding) => finding.unknown === true && codes.includes(finding.code))
        .map(({ code, severity }) => [code, severity]);
    const codes = ['matview-not-refreshable', 'language', 'target-not-empty', 'extension', 'locale'];
    expect(await look(...codes)).toEqual([]);
    await source.psql(database, 'REVOKE SELECT ON pg_language FROM PUBLIC');
    await createDatabase(target.uri(), database);
    await target.psql(
      database,
      `REVOKE SELECT ON pg_publication FROM PUBLIC; REVOKE TEMPORARY ON DATABASE ${database} FROM PUBLIC`,
    );
    await source.psql(database, `CREATE COLLATION c (provider = libc, locale = 'C')`);
    expect(await look(...codes)).toEqual([
      ['target-not-empty', 'error'],
      ['language', 'error'],
      ['locale', 'error'],
    ]);
    await source.psql(database, 'REVOKE SELECT ON pg_extension FROM PUBLIC');
    const { findings } = await inspectDatabase(both, database, DUMP);
    expect(findings).toMatchObject([{ code: 'tables-unreadable', severity: 'error', unknown: true }]);
  });

  it('says which database does not let it in', async () => {
    const database = await newDatabase();
    await source.psql('postgres', `REVOKE CONNECT ON DATABASE ${database} FROM PUBLIC`);
    const inspection = await inspectDatabase({ ...servers, source: as(source) }, database);
    expect(inspection.findings).toMatchObject([{ code: 'database-unreachable', severity: 'error', server: 'source' }]);
    expect(JSON.stringify(inspection)).not.toContain('secret-word');
  });
});

describe('rows that take too long to read', () => {
  it('are not waited for: what depends on them is unknown, as a warning', async () => {
    const database =
      await newDatabase(`CREATE FUNCTION slow(int) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep($1); RETURN true; END $$;
      CREATE TABLE t (a int PRIMARY KEY CHECK (slow(a))); SET session_replication_role = replica; INSERT INTO t VALUES (0);
      ALTER TABLE t DROP CONSTRAINT t_a_check; INSERT INTO t VALUES (60);
      ALTER TABLE t ADD CONSTRAINT slow CHECK (slow(a)) NOT VALID; UPDATE pg_constraint SET convalidated = true WHERE conname = 'slow';
      CREATE MATERIALIZED VIEW m AS SELECT slow(a) FROM t WITH NO DATA; UPDATE pg_class SET relispopulated = true WHERE relname = 'm'`);
    const started = Date.now();
    const { findings } = await inspectDatabase(servers, database, DUMP);
    expect(Date.now() - started).toBeLessThan(15_000);
    expect(findings).toMatchObject([
      { code: 'check-not-satisfied', severity: 'warning', unknown: true, object: 'public.t' },
    ]);
  });
});

describe('recheck', () => {
  it('passes where nothing has changed, and does not mind what is its own', async () => {
    const database = await newDatabase(SOUND);
    const m = await migrationOf(servers, database);
    await recheck(servers, m);
    await source.psql(database, `CREATE PUBLICATION pgtransit_${m.id}_g0 FOR TABLE sound`);
    await createDatabase(target.uri(), database);
    await target.psql(
      database,
      `CREATE SCHEMA pgtransit; CREATE TABLE pgtransit.migration (id text, workflow_id text); INSERT INTO pgtransit.migration VALUES ('${m.id}', 'x');
       CREATE TABLE restored (a int)`,
    );
    await recheck(servers, m);
  });

  it('refuses what came since validation, naming it', async () => {
    const database = await newDatabase(SOUND);
    const m = await migrationOf(servers, database);
    await source.psql(database, 'CREATE TABLE came_later (a int)');
    await expect(recheck(servers, m)).rejects.toMatchObject({
      type: 'ValidationFailed',
      message: expect.stringMatching(/replica-identity.*public\.came_later/s) as string,
    });
    await source.psql(database, 'DROP TABLE came_later');
    await createDatabase(target.uri(), database);
    await target.psql(database, 'CREATE TABLE filled_meanwhile (a int)');
    await expect(recheck(servers, m)).rejects.toThrow(/target-not-empty.*filled_meanwhile/s);
  });
});
