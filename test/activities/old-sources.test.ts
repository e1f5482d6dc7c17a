/* eslint-disable @typescript-eslint/unbound-method -- steps do not use this */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { PostgresServer } from '../../lab/postgres-server.ts';
import { startPostgres } from '../../lab/postgres-server.ts';
import { runActivity } from '../support/copy-fixture.ts';
import { replicationFixture } from '../support/replication-fixture.ts';
import { createDatabase, useServer } from '../support/servers.ts';
import { DUMP, SOUND } from './preflight-liars.ts';
import { inspectDatabase, withCode, type Servers } from './preflight-support.ts';

let source: PostgresServer;
let servers: Servers;

beforeAll(async () => {
  source = await startPostgres({ major: 10 });
  servers = { source: source.uri(), target: (await useServer(18)).uri() };
});

afterAll(() => source.remove());

async function newDatabase(sql: string): Promise<string> {
  const { name } = await createDatabase(source.uri());
  await source.psql(name, sql);
  return name;
}

describe('what later versions do not have', () => {
  it.each([
    ['a type', 'public.old', `CREATE TABLE old (id int PRIMARY KEY, at abstime)`],
    [
      'a domain of one',
      'public.old',
      `CREATE DOMAIN moment AS reltime; CREATE TABLE old (id int PRIMARY KEY, at moment)`,
    ],
    ['an array of one', 'public.old', `CREATE TYPE old AS (at tinterval[])`],
    ['a key of oids', 'public.old', `CREATE TABLE old (v text) WITH OIDS; CREATE UNIQUE INDEX ON old (oid)`],
    ['an operator behind', 'public."!!!"', `CREATE OPERATOR !!! (LEFTARG = bigint, PROCEDURE = numeric_fac)`],
    [
      'an aggregate',
      'public.all_of',
      `CREATE AGGREGATE all_of(anyelement) (SFUNC = array_append, STYPE = anyarray, INITCOND = '{}')`,
    ],
    [
      'an operator of arrays',
      'public."|||"',
      `CREATE OPERATOR ||| (LEFTARG = anyarray, RIGHTARG = anyelement, PROCEDURE = array_append)`,
    ],
    ['a conversion', 'public.mine', `CREATE CONVERSION mine FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8`],
  ])('is an error before the start: %s', async (_, object, sql) => {
    const database = await newDatabase(`${SOUND} CREATE OPERATOR !!! (RIGHTARG = bigint, PROCEDURE = numeric_fac);`);
    const sound = await inspectDatabase(servers, database, DUMP);
    expect(withCode(sound.findings, 'removed-feature')).toEqual([]);
    await source.psql(database, sql);
    const { findings } = await inspectDatabase(servers, database, DUMP);
    expect(withCode(findings, 'removed-feature')).toMatchObject([{ severity: 'error', object }]);
  });

  it('is a warning where only hidden numbers are lost', async () => {
    const database = await newDatabase(`${SOUND} CREATE TABLE hidden (id int PRIMARY KEY) WITH OIDS`);
    const { findings } = await inspectDatabase(servers, database);
    expect(withCode(findings, 'table-with-oids')).toMatchObject([{ severity: 'warning', object: 'public.hidden' }]);
  });
});

describe('TRUNCATE, of which PostgreSQL 10 tells nobody,', () => {
  it('is warned of before the start', async () => {
    const database = await newDatabase(SOUND);
    const code = 'truncate-not-replicated';
    expect(withCode((await inspectDatabase(servers, database)).findings, code)).toMatchObject([
      { severity: 'warning' },
    ]);
    expect(withCode((await inspectDatabase(servers, database, DUMP)).findings, code)).toEqual([]);
  });

  it('is in the report of the tables that it has hit since', async () => {
    const tables = ['hit', 'spared'].map((name) => `CREATE TABLE public.${name} (id int PRIMARY KEY)`).join('; ');
    const f = await replicationFixture({ source, schema: tables, rows: 'INSERT INTO public.hit VALUES (1)' });
    try {
      await f.stream();
      await f.source.query(
        'TRUNCATE public.hit; INSERT INTO public.hit VALUES (2); INSERT INTO public.spared VALUES (3)',
      );
      const { markLsn } = await runActivity(f.steps.mark, [f.m]);
      await runActivity(f.steps.waitForDrain, [f.m, markLsn]);
      const warnings = await f.target.query<{ message: string }>('SELECT message FROM pgtransit.event WHERE warning');
      expect(warnings.map(({ message }) => message)).toEqual([
        expect.stringMatching(/^Table public\.hit was truncated/),
      ]);
    } finally {
      await f.close();
    }
  });
});
