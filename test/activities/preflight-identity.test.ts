import { beforeAll, describe, expect, it } from 'vitest';
import type { PostgresAccess } from '../../lab/postgres-access.ts';
import { createDatabase, useServer } from '../support/servers.ts';
import { itCatches, REPLICATION, usePair } from './preflight-liars.ts';
import type { Servers } from './preflight-support.ts';
import { inspectDatabase, withCode } from './preflight-support.ts';

let target: PostgresAccess;
let servers: Servers;

beforeAll(async () => {
  ({ target, servers } = await usePair());
});

describe('replica identity', () => {
  itCatches([
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
      code: 'key-ranges',
      sound: `CREATE TABLE narrow (id uuid, v int, PRIMARY KEY (id, v)); CREATE UNIQUE INDEX ON narrow (v, id); INSERT INTO narrow SELECT gen_random_uuid(), 1;
        CREATE TABLE wide (id int PRIMARY KEY, v text); ALTER TABLE wide REPLICA IDENTITY FULL; INSERT INTO wide VALUES (1)`,
      broken: `ALTER TABLE sound REPLICA IDENTITY FULL; CREATE TABLE by_text (id varchar(9) PRIMARY KEY); INSERT INTO by_text VALUES ('a');
        CREATE TABLE stored (id int PRIMARY KEY, v text); INSERT INTO stored VALUES (1);
        CREATE TABLE again (id int PRIMARY KEY, v int UNIQUE); INSERT INTO again VALUES (1, 1);
        CREATE TABLE apart (id int PRIMARY KEY, v int4range, EXCLUDE USING gist (v WITH &&)); ALTER TABLE apart REPLICA IDENTITY FULL; INSERT INTO apart VALUES (1);
        CREATE TABLE no_key (v int); ALTER TABLE no_key REPLICA IDENTITY FULL; INSERT INTO no_key VALUES (1)`,
      objects: ['public.again', 'public.apart', 'public.by_text', 'public.no_key', 'public.stored'],
      plan: { ...REPLICATION, snapshot: { rangeBytes: 1 } },
      severity: 'warning',
    },
    {
      code: 'hash-partition',
      sound: `CREATE TYPE mood AS ENUM ('sad', 'ok')`,
      broken: `CREATE TABLE h (m mood PRIMARY KEY) PARTITION BY HASH (m); CREATE TABLE h0 PARTITION OF h FOR VALUES WITH (MODULUS 1, REMAINDER 0)`,
      objects: ['public.h0'],
      plan: REPLICATION,
    },
  ]);

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
});
