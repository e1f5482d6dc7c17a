import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { beforeAll, describe, expect, it } from 'vitest';
import type { PostgresAccess } from '../../lab/postgres-access.ts';
import { DUMP, itCatches, SOUND, usePair } from './preflight-liars.ts';
import type { Servers } from './preflight-support.ts';
import { inspectDatabase, withCode } from './preflight-support.ts';

let source: PostgresAccess;
let servers: Servers;
let newDatabase: (sql?: string) => Promise<string>;

beforeAll(async () => {
  ({ source, servers, newDatabase } = await usePair());
});

/** Names of one test file on servers that others use too. */
const unique = randomBytes(4).toString('hex');

describe('objects', () => {
  itCatches([
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
    { code: 'unlogged-table', broken: 'CREATE UNLOGGED TABLE u (a int)', objects: ['public.u'], severity: 'info' },
    {
      code: 'unlogged-table',
      broken: 'CREATE UNLOGGED TABLE u (a int)',
      objects: ['public.u'],
      severity: 'info',
      plan: DUMP,
    },
    { code: 'large-object', broken: 'SELECT lo_create(0)', objects: [null], severity: 'info' },
    {
      code: 'all-tables-publication',
      broken: 'CREATE PUBLICATION everything FOR ALL TABLES',
      objects: ['"everything"'],
      severity: 'warning',
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
    {
      code: 'name-case',
      broken:
        'CREATE VIEW "Sound" AS SELECT 1 AS a; CREATE SCHEMA other; CREATE TABLE other."SOUND" (id int PRIMARY KEY)',
      objects: ['public."Sound"'],
      severity: 'info',
      says: /public\."Sound", public\.sound\./,
    },
    {
      code: 'security-label',
      broken: `INSERT INTO pg_seclabel (objoid, classoid, objsubid, provider, label) VALUES ('sound'::regclass, 'pg_class'::regclass, 0, 'selinux', 'x')`,
      objects: [`'selinux'`],
      severity: 'warning',
    },
    {
      code: 'timeout-setting',
      broken: `ALTER DATABASE %database% SET statement_timeout = '1min'`,
      objects: [null],
      severity: 'info',
      says: /gives sessions "statement_timeout" of 60000ms; every session of the migration sets its own/,
    },
    {
      code: 'unsupported-extension',
      sound: 'CREATE EXTENSION hstore; CREATE EXTENSION citext',
      broken: `UPDATE pg_extension SET extname = CASE extname WHEN 'hstore' THEN 'timescaledb' ELSE 'citus' END WHERE extname IN ('hstore', 'citext')`,
      objects: ['"citus"', '"timescaledb"'],
      remedy: /Exclude database/,
    },
  ]);

  it('that a session holds for itself are named, with the session; and its temporary tables are left', async () => {
    const database = await newDatabase(SOUND);
    const client = new pg.Client({ connectionString: source.uri(database) });
    await client.connect();
    try {
      const look = async (code: string) => withCode((await inspectDatabase(servers, database)).findings, code);
      expect([...(await look('locked-table')), ...(await look('temporary-table'))]).toEqual([]);
      await client.query('CREATE TEMP TABLE mine (a int); BEGIN; LOCK TABLE sound');
      const { rows } = await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
      const pid = rows[0]?.pid ?? 0;
      const { findings } = await inspectDatabase(servers, database);
      expect(findings).toMatchObject([{ code: 'locked-table', severity: 'error', object: 'public.sound' }]);
      expect(findings[0]?.message).toContain(`Backend ${pid} of "postgres" holds`);
      expect(findings[0]?.remedy).toContain(`SELECT pg_terminate_backend(${pid});`);
      await client.query('COMMIT');
      expect(await look('temporary-table')).toMatchObject([{ severity: 'info', object: null }]);
    } finally {
      await client.end();
    }
  });

  it('in a tablespace that the target lacks go to the default one', async () => {
    const database = await newDatabase(SOUND);
    const look = async () => withCode((await inspectDatabase(servers, database)).findings, 'tablespace');
    expect(await look()).toEqual([]);
    const name = `space_${unique}`;
    await source.psql(database, `SET allow_in_place_tablespaces = on; CREATE TABLESPACE ${name} LOCATION ''`);
    await source.psql(database, `CREATE TABLE far (a int PRIMARY KEY) TABLESPACE ${name}`);
    expect(await look()).toMatchObject([{ severity: 'warning', object: `"${name}"` }]);
    await source.psql(database, `DROP TABLE far; DROP TABLESPACE ${name}`);
  });
});
