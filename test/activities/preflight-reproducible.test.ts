import { beforeAll, describe, expect, it } from 'vitest';
import { createDatabase, useServer } from '../support/servers.ts';
import { complaints, DUMP, itCatches, usePair } from './preflight-liars.ts';
import type { Servers } from './preflight-support.ts';
import { inspectDatabase, withCode } from './preflight-support.ts';

let servers: Servers;
let newDatabase: (sql?: string) => Promise<string>;

beforeAll(async () => {
  ({ servers, newDatabase } = await usePair());
});

describe('what the target computes anew', () => {
  itCatches([
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
  ]);

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
    expect(complaints(findings)).toMatchObject([
      { code: 'check-not-satisfied', severity: 'warning', unknown: true, object: 'public.t' },
    ]);
  });
});
