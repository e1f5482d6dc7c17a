import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { beforeAll, describe, expect, it } from 'vitest';
import type { PostgresAccess } from '../../lab/postgres-access.ts';
import { createDatabase, useServer } from '../support/servers.ts';
import { DUMP, REPLICATION, usePair } from './preflight-liars.ts';
import type { PlanInput, Servers } from './preflight-support.ts';
import { errorsOf, inspectCluster, inspectDatabase, withCode } from './preflight-support.ts';

let source: PostgresAccess;
let target: PostgresAccess;
let servers: Servers;
let newDatabase: (sql?: string) => Promise<string>;

beforeAll(async () => {
  ({ source, target, servers, newDatabase } = await usePair());
});

/** Names of one test file on servers that others use too. */
const unique = randomBytes(4).toString('hex');

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
    const [script] = withCode(findings, 'grant-script');
    expect(script).toMatchObject({ severity: 'info', server: 'source', object: null });
    await source.psql(database, script?.remedy ?? '');
    expect(errorsOf((await inspectDatabase(both, database, REPLICATION)).findings)).toEqual([]);
    expect((await inspectDatabase(both, database)).method).toBe('replication');
  });

  it('gets one short script, however many tables are missing', async () => {
    const database = await newDatabase(`CREATE SCHEMA many; CREATE SCHEMA few; CREATE TABLE few.t (id int PRIMARY KEY);
      DO $$ BEGIN FOR i IN 1..120 LOOP EXECUTE format('CREATE TABLE many."t %s" (id serial PRIMARY KEY)', i); END LOOP; END $$`);
    const both = { source: as(source), target: as(target) };
    const { findings } = await inspectDatabase(both, database, DUMP);
    const [script] = withCode(findings, 'grant-script');
    expect(script?.remedy?.split('\n')).toEqual([
      `GRANT USAGE ON SCHEMA "few" TO "${role}";`,
      `GRANT USAGE ON SCHEMA "many" TO "${role}";`,
      `GRANT SELECT ON TABLE "few"."t" TO "${role}";`,
      `GRANT SELECT ON ALL TABLES IN SCHEMA "many" TO "${role}";`,
      `GRANT SELECT ON ALL SEQUENCES IN SCHEMA "many" TO "${role}";`,
    ]);
    await source.psql(database, script?.remedy ?? '');
    expect(errorsOf((await inspectDatabase(both, database, DUMP)).findings)).toEqual([]);
  });

  it('is given a dump where it may not replicate, and told what it lacks', async () => {
    const reader = `reader_${unique}`;
    await source.psql('postgres', `CREATE ROLE ${reader} LOGIN`);
    const database = await newDatabase(`CREATE TABLE t (id int PRIMARY KEY); GRANT SELECT ON t TO ${reader}`);
    const both = { ...servers, source: source.uri(undefined, { user: reader }) };
    const { method, reason, findings } = await inspectDatabase(both, database);
    expect(method).toBe('dump');
    expect(reason).toMatch(/^Replication is not possible .* may not make a replication slot\.$/);
    expect(errorsOf(findings)).toEqual([]);
    expect(withCode(findings, 'replication-attribute')).toMatchObject([
      { severity: 'warning', remedy: `ALTER ROLE "${reader}" REPLICATION;` },
    ]);
    expect((await inspectDatabase(both, database, REPLICATION)).method).toBe('replication');
  });

  it('is told whose objects will be its own on the target, and how to change that', async () => {
    const [kept, gone] = [`kept_${unique}`, `gone_${unique}`];
    await source.psql('postgres', `CREATE ROLE ${kept}; CREATE ROLE ${gone}`);
    const database = await newDatabase(`CREATE SCHEMA s AUTHORIZATION ${kept}; CREATE TABLE t (id int PRIMARY KEY);
      ALTER TABLE t OWNER TO ${gone}; ALTER DATABASE :"DBNAME" OWNER TO ${kept}; ALTER SCHEMA public OWNER TO ${kept}`);
    await target.psql('postgres', `CREATE ROLE ${kept}`);
    const both = { source: servers.source, target: as(target) };
    const look = async (plan: object = {}) =>
      withCode((await inspectDatabase(both, database, { ...DUMP, ...plan })).findings, 'object-owner');
    const found = await look();
    expect(found.map(({ object, severity }) => [object, severity])).toEqual([
      [`"${gone}"`, 'warning'],
      [`"${kept}"`, 'warning'],
    ]);
    expect(await look({ owners: false })).toEqual([]);
    // To be a member is not enough since 16.
    await target.psql('postgres', `GRANT ${kept} TO ${role} WITH SET FALSE`);
    expect(await look()).toHaveLength(2);
    await target.psql('postgres', `REVOKE ${kept} FROM ${role}`);
    // A superuser runs the remedies; the role that had to be made is the migration's own if it may make roles.
    await target.psql('postgres', found[1]?.remedy ?? '');
    expect((await look()).map(({ object }) => object)).toEqual([`"${gone}"`]);
    await target.psql('postgres', `ALTER ROLE ${role} CREATEROLE`);
    expect(await look()).toEqual([]);
    expect((await look({ roles: { exclude: [gone] } })).map(({ object }) => object)).toEqual([`"${gone}"`]);
    await target.psql('postgres', `ALTER ROLE ${role} NOCREATEROLE`);
  });

  it('is told which attributes of roles get lost, because it may not give them', async () => {
    const [boss, sender, plain] = [`boss_${unique}`, `sender_${unique}`, `nobody_${unique}`];
    await source.psql(
      'postgres',
      `CREATE ROLE ${boss} SUPERUSER CREATEDB; CREATE ROLE ${sender} REPLICATION BYPASSRLS; CREATE ROLE ${plain} CREATEDB`,
    );
    await target.psql('postgres', `CREATE ROLE maker_${unique} LOGIN CREATEROLE CREATEDB REPLICATION`);
    const both = { source: servers.source, target: target.uri(undefined, { user: `maker_${unique}` }) };
    const found = withCode((await inspectCluster(both, DUMP)).findings, 'role-attribute').filter(({ object }) =>
      object?.includes(unique),
    );
    expect(found.map(({ object, message }) => [object, /without (.*), which/.exec(message)?.[1]])).toEqual([
      [`"${boss}"`, 'SUPERUSER'],
      [`"${sender}"`, 'BYPASSRLS'],
    ]);
    await source.psql('postgres', `DROP ROLE ${boss}, ${sender}, ${plain}`);
  });

  it('is refused where row security would hide rows', async () => {
    const database = await newDatabase(`CREATE TABLE secret (id int PRIMARY KEY); GRANT SELECT ON secret TO ${role}`);
    const both = { ...servers, source: as(source) };
    expect(withCode((await inspectDatabase(both, database, DUMP)).findings, 'row-security')).toEqual([]);
    await source.psql(database, 'ALTER TABLE secret ENABLE ROW LEVEL SECURITY');
    const { findings } = await inspectDatabase(both, database, DUMP);
    expect(withCode(findings, 'row-security')).toMatchObject([{ severity: 'error', object: 'public.secret' }]);
  });

  it.each([15, 17, 18])('is refused large objects of %i that it may not read', async (major) => {
    const server = await useServer(major);
    const reader = `lo_reader_${unique}`;
    await server.psql('postgres', `CREATE ROLE ${reader} LOGIN`);
    const { name } = await createDatabase(server.uri());
    const from = { source: server.uri(undefined, { user: reader }), target: target.uri() };
    const found = async () => withCode((await inspectDatabase(from, name, DUMP)).findings, 'large-object-select');
    expect(await found()).toEqual([]);
    await server.psql(
      name,
      `SELECT lo_create(1), lo_create(2), lo_create(3), lo_create(4), lo_create(5); ALTER LARGE OBJECT 1 OWNER TO ${reader};
       GRANT SELECT ON LARGE OBJECT 2 TO ${reader}; GRANT SELECT ON LARGE OBJECT 3 TO PUBLIC; GRANT UPDATE ON LARGE OBJECT 4 TO ${reader}`,
    );
    expect(await found()).toMatchObject([
      { severity: 'error', object: null, message: `"${reader}" may not read 2 large objects, 4 being the first.` },
    ]);
    // What the check goes by is what the server does.
    const read = (oid: number) => server.psql(name, `SET ROLE ${reader}; SELECT length(lo_get(${oid}))`);
    for (const oid of [1, 2, 3]) expect(await read(oid)).toContain('0');
    for (const oid of [4, 5]) await expect(read(oid)).rejects.toThrow(/permission denied/);
    await server.psql(name, (await found())[0]?.remedy ?? '');
    expect(await found()).toEqual([]);
    await server.psql(name, `DROP OWNED BY ${reader}; DROP ROLE ${reader}`);
  });

  it('is told of a connection limit that the copy would run into', async () => {
    const database = await newDatabase();
    const both = { ...servers, source: as(source) };
    const limits = async () => withCode((await inspectDatabase(both, database, DUMP)).findings, 'connection-limit');
    expect(await limits()).toEqual([]);
    await source.psql('postgres', `ALTER DATABASE ${database} CONNECTION LIMIT 2`);
    expect(await limits()).toMatchObject([{ severity: 'error', object: `"${database}"` }]);
    await source.psql('postgres', `ALTER DATABASE ${database} CONNECTION LIMIT 5`);
    expect(await limits()).toMatchObject([{ severity: 'warning', server: 'source' }]);
    await source.psql('postgres', `ALTER DATABASE ${database} CONNECTION LIMIT -1`);
    both.target = as(target);
    expect(await limits()).toEqual([]);
    await target.psql('postgres', `ALTER ROLE ${role} CONNECTION LIMIT 3`);
    expect(await limits()).toMatchObject([{ severity: 'error', server: 'target', object: `"${role}"` }]);
    await target.psql('postgres', `ALTER ROLE ${role} CONNECTION LIMIT 7`);
    expect(await limits()).toMatchObject([{ severity: 'warning', server: 'target' }]);
    await target.psql('postgres', `ALTER ROLE ${role} CONNECTION LIMIT -1`);
  });

  it('cannot apply changes on the target to a table that forces row security on its owner, nor can a superuser', async () => {
    const database = await newDatabase(`CREATE TABLE t (id int PRIMARY KEY); ALTER TABLE t ENABLE ROW LEVEL SECURITY;
      ALTER TABLE t OWNER TO owner_${unique}; CREATE TABLE safe (id int PRIMARY KEY);
      ALTER TABLE safe ENABLE ROW LEVEL SECURITY; ALTER TABLE safe FORCE ROW LEVEL SECURITY`);
    const forced = async (to: string, plan = {}) =>
      withCode(
        (await inspectDatabase({ ...servers, target: to }, database, { ...REPLICATION, ...plan })).findings,
        'forced-row-security',
      );
    const users = [as(target), target.uri()];
    for (const user of users) expect(await forced(user)).toEqual([]);
    await source.psql(database, 'ALTER TABLE t FORCE ROW LEVEL SECURITY');
    for (const user of users) expect(await forced(user)).toMatchObject([{ severity: 'error', object: 'public.t' }]);
    // Without owners, all of it belongs to the role itself.
    expect(await forced(as(target), { owners: false })).toHaveLength(2);
    expect(await forced(target.uri(), { owners: false })).toEqual([]);
    await target.psql('postgres', `ALTER ROLE owner_${unique} BYPASSRLS`);
    for (const user of users) expect(await forced(user)).toEqual([]);
  });

  it('cannot create an extension that is for superusers, unless it is there or left out', async () => {
    const database = await newDatabase('CREATE EXTENSION dblink; CREATE EXTENSION hstore');
    const both = { source: servers.source, target: as(target) };
    const found = async (plan: object = {}) =>
      withCode((await inspectDatabase(both, database, { ...plan })).findings, 'extension');
    expect(await found()).toMatchObject([{ severity: 'error', object: '"dblink"' }]);
    expect(await found({ extensions: { exclude: ['dblink'] } })).toEqual([]);
    await createDatabase(target.uri(), database);
    await target.psql(database, 'CREATE EXTENSION dblink');
    expect(await found()).toEqual([]);
  });

  it('is told what it cannot make on the target, before the server refuses it', async () => {
    const made: [string, string][] = [
      [
        `CREATE FUNCTION c() RETURNS trigger LANGUAGE c AS '$libdir/refint', 'check_primary_key'`,
        'function public.c()',
      ],
      [
        `CREATE FUNCTION leak(a int) RETURNS bool LEAKPROOF LANGUAGE sql AS 'SELECT true'`,
        'function public.leak(integer)',
      ],
      [
        'CREATE AGGREGATE agg (bigint) (SFUNC = int8_avg_accum, STYPE = internal, FINALFUNC = numeric_poly_sum)',
        'aggregate public.agg(bigint)',
      ],
      [
        `CREATE FUNCTION b_in(cstring) RETURNS b LANGUAGE internal AS 'int4in'`,
        'function public.b_in(pg_catalog.cstring)',
      ],
      [`CREATE FUNCTION b_out(b) RETURNS cstring LANGUAGE internal AS 'int4out'`, 'function public.b_out(public.b)'],
      ['CREATE TYPE b (INPUT = b_in, OUTPUT = b_out, LIKE = int)', 'type public.b'],
      ['CREATE CAST (json AS bytea) WITHOUT FUNCTION', 'cast (json AS pg_catalog.bytea)'],
      ['CREATE OPERATOR FAMILY family USING btree', 'operator family public.family USING btree'],
      [
        'CREATE OPERATOR CLASS class FOR TYPE int USING hash AS OPERATOR 1 =, FUNCTION 1 hashint4(int)',
        'operator class public.class USING hash',
      ],
      [
        'CREATE TEXT SEARCH PARSER parser (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, LEXTYPES = prsd_lextype)',
        'text search parser public.parser',
      ],
      ['CREATE TEXT SEARCH TEMPLATE template (LEXIZE = dsimple_lexize)', 'text search template public.template'],
      ['CREATE ACCESS METHOD method TYPE TABLE HANDLER heap_tableam_handler', 'access method method'],
      ['CREATE LANGUAGE tongue HANDLER plpgsql_call_handler', 'language tongue'],
      ['CREATE FOREIGN DATA WRAPPER wrapper', 'foreign-data wrapper wrapper'],
      ['CREATE SERVER far FOREIGN DATA WRAPPER wrapper', 'server "far"'],
      [
        `CREATE FUNCTION sets() RETURNS int LANGUAGE sql SET log_statement = 'none' AS 'SELECT 1'`,
        'FUNCTION public.sets()',
      ],
    ];
    const database = await newDatabase(made.map(([sql]) => sql).join('; '));
    const found = async (to: string) =>
      withCode((await inspectDatabase({ ...servers, target: to }, database, DUMP)).findings, 'superuser-object');
    const findings = await found(as(target));
    expect(findings.map(({ object }) => object).sort()).toEqual(made.map(([, object]) => object).sort());
    for (const finding of findings) expect(finding).toMatchObject({ severity: 'error', database });
    expect(await found(target.uri())).toEqual([]);

    // What the type consists of is there already, as is the wrapper: each statement is refused for its own sake.
    await createDatabase(target.uri(), database);
    const needed = made.filter(([, object]) => /public\.b_|wrapper/.test(object)).map(([sql]) => sql);
    await target.psql(database, `GRANT ALL ON SCHEMA public TO ${role}; ${needed.join('; ')}`);
    for (const [sql] of made)
      await expect(target.psql(database, `SET ROLE ${role}; ${sql}`)).rejects.toThrow(
        /permission denied|superuser|must be owner|data type cannot be internal/i,
      );
  });

  it('is told what will be left out on the target, because only superusers make it', async () => {
    const database = await newDatabase(`CREATE TABLE t (id int PRIMARY KEY);
      CREATE FUNCTION e() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE EVENT TRIGGER watch ON sql_drop EXECUTE FUNCTION e();
      CREATE PUBLICATION everything FOR ALL TABLES; CREATE PUBLICATION whole FOR TABLES IN SCHEMA public; CREATE PUBLICATION one FOR TABLE t;
      ALTER DATABASE :"DBNAME" SET log_statement = 'ddl'; ALTER DATABASE :"DBNAME" SET work_mem = '8MB'`);
    const look = async (to: string) =>
      withCode((await inspectDatabase({ ...servers, target: to }, database, DUMP)).findings, 'superuser-object');
    expect((await look(as(target))).map(({ object, severity }) => [object, severity])).toEqual([
      ['event trigger watch', 'warning'],
      ['publication everything', 'warning'],
      ['publication whole', 'warning'],
      [`database ${database}`, 'warning'],
    ]);
    expect(await look(target.uri())).toEqual([]);
  });

  it('may not fence a database that is not its own, nor end the sessions of others, and is told how it may', async () => {
    const database = await newDatabase('CREATE TABLE t (id int PRIMARY KEY)');
    const both = { ...servers, source: as(source) };
    const plan = { ...REPLICATION, stop: { fence: 'read-only' } };
    const look = async (asked: PlanInput, code = 'fence') =>
      withCode((await inspectDatabase(both, database, asked)).findings, code);
    expect(await look(REPLICATION)).toEqual([]);
    const found = await look(plan);
    expect(found.map(({ severity, object, remedy }) => [severity, object, remedy])).toEqual([
      ['error', `"${database}"`, `ALTER DATABASE "${database}" OWNER TO "${role}";`],
      ['error', `"${database}"`, `GRANT pg_read_all_stats, pg_signal_backend TO "${role}";`],
    ]);
    for (const { remedy } of found) await source.psql(database, remedy ?? '');
    expect(await look(plan)).toEqual([]);
    const client = new pg.Client({ connectionString: source.uri(database) });
    await client.connect();
    expect(await look(plan, 'fence-superuser')).toMatchObject([{ severity: 'warning', object: `"${database}"` }]);
    expect(await look(REPLICATION, 'fence-superuser')).toEqual([]);
    await client.end();
    await source.psql('postgres', `REVOKE pg_read_all_stats, pg_signal_backend FROM ${role}`);
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
    await source.psql(database, 'CREATE TABLE t (id int PRIMARY KEY)');
    const closed = withCode((await inspectDatabase(both, database)).findings, 'target-create');
    expect(closed).toMatchObject([{ severity: 'error', object: '"public"' }]);
    await target.psql(database, closed[0]?.remedy ?? '');
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

  it('says which database does not let it in, on either side', async () => {
    const database = await newDatabase();
    await source.psql('postgres', `REVOKE CONNECT ON DATABASE ${database} FROM PUBLIC`);
    const inspection = await inspectDatabase({ ...servers, source: as(source) }, database);
    expect(inspection.findings).toMatchObject([{ code: 'database-unreachable', severity: 'error', server: 'source' }]);
    await createDatabase(target.uri(), database);
    await target.psql('postgres', `REVOKE CONNECT ON DATABASE ${database} FROM PUBLIC`);
    const other = await inspectDatabase({ ...servers, target: as(target) }, database);
    expect(other.findings).toMatchObject([{ code: 'database-unreachable', severity: 'error', server: 'target' }]);
    expect(JSON.stringify([inspection, other])).not.toContain('secret-word');
  });
});
