import { afterEach, describe, expect, it } from 'vitest';
import { createCopyActivities } from '../../activities/copy.ts';
import { createVerifyActivities } from '../../activities/verify.ts';
import type { CopyFixture, FixtureOptions } from '../support/copy-fixture.ts';
import { copyFixture, countRows, runActivity } from '../support/copy-fixture.ts';

let fixture: CopyFixture | undefined;
afterEach(async () => {
  await fixture?.close();
  fixture = undefined;
});

async function copyAll(options: FixtureOptions) {
  fixture = await copyFixture(options);
  const { m, deps, source, target } = fixture;
  const activities = createCopyActivities(deps);
  await runActivity(() => activities.planCopy(m, 0), []);
  await runActivity(() => activities.copyTables(m, 0, 0), []);
  const formatOf = async (name: string) =>
    (await target.one<{ format: string }>('SELECT format FROM pgtransit.relation WHERE name = $1', [name])).format;
  const rowsOf = (session: typeof source, table: string) =>
    session.query(`SELECT r.*::text AS r FROM public.${table} r`.replace('r.*', '(r.*)'));
  return {
    source,
    target,
    formatOf,
    rowsOf,
    verify: () => runActivity(() => createVerifyActivities(deps).verifyCopied(m, 0), []),
  };
}

/** Type and some values of it, among them what is easily lost. */
const BINARY: [string, string[]][] = [
  ['bool', ['true', 'false']],
  ['"char"', ['a', '\\377']],
  ['name', ['n']],
  ['bytea', ['\\x00ff', '']],
  ['int2', ['-32768']],
  ['int4', ['-2147483648']],
  ['int8', ['-9223372036854775808']],
  ['float4', ['NaN', 'Infinity', '-Infinity', '-0', '1e-45', '3.4028235e38']],
  ['float8', ['NaN', 'Infinity', '-Infinity', '-0', '5e-324', '0.1', '1.7976931348623157e308']],
  ['numeric', ['NaN', 'Infinity', '-Infinity', '0.000', '-1e-1000', `1${'0'.repeat(400)}.5`]],
  ['numeric(10,2)', ['1.10']],
  ['oid', ['4294967295']],
  ['xid', ['4294967295']],
  ['cid', ['1']],
  ['tid', ['(1,2)']],
  ['xid8', ['18446744073709551615']],
  ['pg_lsn', ['FFFFFFFF/FFFFFFFF']],
  ['text', ['', 'NULL', '\\N', 'tab\there', 'line\nfeed\r', 'é😀', "quote'", '\\.']],
  ['varchar(10)', ['ten chars.']],
  ['bpchar(5)', ['ab']],
  ['refcursor', ['c']],
  ['date', ['infinity', '-infinity', '4713-01-01 BC', '5874897-12-31']],
  ['time', ['24:00:00', '12:34:56.789012']],
  ['timetz', ['23:59:59.999999-15:59']],
  ['timestamp', ['infinity', '-infinity', '4713-01-01 00:00:00 BC', '294276-12-31 23:59:59.999999']],
  ['timestamptz', ['infinity', '4713-11-24 00:00:00+00 BC', '2024-03-31 02:30:00 Europe/Zurich']],
  ['interval', ['-1 year 2 mons -3 days 04:05:06.7', '178000000 years', 'infinity']],
  ['uuid', ['a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11']],
  ['json', ['{"a" : 1, "a":2}']],
  ['jsonb', ['{"a": [1.10, null, "\\u00e9"]}', 'null']],
  ['jsonpath', ['$.a[*] ? (@ > 1)']],
  ['bit(5)', ['10101']],
  ['varbit', ['', '101']],
  ['inet', ['::1/64', '10.0.0.1']],
  ['cidr', ['10.0.0.0/8']],
  ['macaddr', ['08:00:2b:01:02:03']],
  ['macaddr8', ['08:00:2b:01:02:03:04:05']],
  ['point', ['(NaN,Infinity)']],
  ['line', ['{1,2,3}']],
  ['lseg', ['[(1,2),(3,4)]']],
  ['box', ['(3,4),(1,2)']],
  ['path', ['((1,2),(3,4))', '[(1,2),(3,4)]']],
  ['polygon', ['((1,2),(3,4),(5,6))']],
  ['circle', ['<(1,2),3>']],
  ['tsvector', ["'a':1A 'b' 'it''s':16383"]],
  ['txid_snapshot', ['10:20:10,14']],
  ['pg_snapshot', ['10:20:10,14']],
  ['int2vector', ['1 2 3']],
  ['oidvector', ['1 2 3']],
  ['int4range', ['empty', '[1,5)', '(,)']],
  ['numrange', ['[1.10,)']],
  ['tstzrange', ['[2020-01-01 00:00:00+00,infinity]']],
  ['daterange', ['(,2020-01-01)']],
  ['int8multirange', ['{[1,3),[5,8)}', '{}']],
  ['int4[]', ['{}', '{1,NULL,3}', '[0:1]={1,2}', '{{1,2},{3,4}}']],
  ['text[]', ['{"NULL",NULL,"a,b","\\"q\\""}']],
  ['timestamptz[]', ['{infinity}']],
  ['numeric[]', ['{NaN,1.0}']],
  ['int4range[]', ['{"[1,2)",empty}']],
  ['public.mood', ['ok']],
  ['public.positive', ['7']],
  ['public.moodrange', ['[sad,happy]']],
];

const TEXT: [string, string[]][] = [
  ['regclass', ['public.elsewhere', 'pg_catalog.pg_class']],
  ['regproc', ['pg_catalog.now']],
  ['regprocedure', ['pg_catalog.abs(integer)']],
  ['regoperator', ['pg_catalog.+(integer,integer)']],
  ['regtype', ['public.mood']],
  ['regrole', ['postgres']],
  ['regnamespace', ['public']],
  ['regclass[]', ['{public.elsewhere}']],
  ['money', ['$1,234.56']],
  ['tsquery', ["'a' & !'b':* <2> 'c'", '']],
  ['xml', ['<?xml version="1.0" encoding="UTF-8"?><a>é</a>', 'content <b/>']],
  ['aclitem', ['postgres=r/postgres']],
  ['public.mood[]', ['{ok,NULL,happy}']],
  ['public.positive[]', ['{1,2}']],
  ['public.pair', ['(1,"a,b")']],
  ['public.hstore', ['"a"=>"1", "b"=>NULL']],
];

const table = (name: string, [type, values]: [string, string[]]) => ({
  create: `CREATE TABLE public.${name} (v ${type})`,
  insert: `INSERT INTO public.${name} SELECT v::${type} FROM unnest(ARRAY[${[...values.map((value) => `$q$${value}$q$`), 'NULL'].join(', ')}]::text[]) v`,
});

const TYPES = `CREATE TYPE public.mood AS ENUM ('sad', 'ok', 'happy'); CREATE DOMAIN public.positive AS int CHECK (VALUE > 0);
  CREATE TYPE public.moodrange AS RANGE (SUBTYPE = public.mood); CREATE TYPE public.pair AS (a int, b text); CREATE EXTENSION hstore SCHEMA public;
  CREATE TABLE public.elsewhere ()`;

describe('the copy of values', () => {
  it('is exact for every built-in type, by its binary format where that means the same on both sides', async () => {
    const all = [
      ...BINARY.map((each, index) => table(`b${index}`, each)),
      ...TEXT.map((each, index) => table(`t${index}`, each)),
    ];
    const { source, target, formatOf, rowsOf, verify } = await copyAll({
      schema: [TYPES, ...all.map(({ create }) => create)].join(';'),
      // Other oids on the target than on the source, so that a copied oid would mean something else.
      rows: `DROP TABLE public.elsewhere; CREATE TABLE public.between (); CREATE TABLE public.elsewhere (); DROP TABLE public.between; ${all.map(({ insert }) => insert).join(';')}`,
    });
    for (const [prefix, types, format] of [
      ['b', BINARY, 'binary'],
      ['t', TEXT, 'text'],
    ] as const) {
      for (const [index, [type]] of types.entries()) {
        const name = `${prefix}${index}`;
        expect([type, await rowsOf(target, name)]).toEqual([type, await rowsOf(source, name)]);
        expect([type, await formatOf(name)]).toEqual([type, format]);
      }
    }
    await verify();
  });

  it('writes a regclass by name, so that it means the table of that name on the target', async () => {
    const { target } = await copyAll({
      schema: 'CREATE TABLE public.p (v regclass)',
      onTarget: 'CREATE TABLE public.other1 (); CREATE TABLE public.other2 (); CREATE TABLE public.goal ()',
      rows: `CREATE TABLE public.goal (); INSERT INTO public.p VALUES ('public.goal')`,
    });
    expect(await target.one(`SELECT v::oid = 'public.goal'::regclass AS same FROM public.p`)).toEqual({ same: true });
  });

  it('keeps identity values, computes generated columns, and knows tables of 0 and of 300 columns', async () => {
    const columns = Array.from({ length: 300 }, (_, index) => `"C ${index}" int DEFAULT ${index}`);
    const { target, verify } = await copyAll({
      schema: `CREATE TABLE public.a (id int GENERATED ALWAYS AS IDENTITY, gone int, g int GENERATED ALWAYS AS (x * 2) STORED, x int);
               ALTER TABLE public.a DROP COLUMN gone; CREATE TABLE public.none (); CREATE TABLE public.wide (${columns.join(', ')});
               CREATE TABLE public."G only" (g int GENERATED ALWAYS AS (1) STORED)`,
      rows: `INSERT INTO public.a (id, x) OVERRIDING SYSTEM VALUE SELECT i + 100, i FROM generate_series(1, 3) i; INSERT INTO public.none SELECT FROM generate_series(1, 5);
             INSERT INTO public.wide DEFAULT VALUES; INSERT INTO public."G only" DEFAULT VALUES`,
    });
    expect(await target.query('SELECT id, x, g FROM public.a ORDER BY id')).toEqual([
      { id: 101, x: 1, g: 2 },
      { id: 102, x: 2, g: 4 },
      { id: 103, x: 3, g: 6 },
    ]);
    expect(await verify()).toMatchObject({ tables: 4, rows: 10 });
  });

  it('is by text to an older server', async () => {
    const { formatOf, verify } = await copyAll({
      source: 17,
      target: 15,
      schema: 'CREATE TABLE public.t (v int)',
      rows: 'INSERT INTO public.t VALUES (1)',
    });
    expect(await formatOf('t')).toBe('text');
    await verify();
  });

  it('takes rows of 20 MB through little memory', async () => {
    const before = process.memoryUsage().rss;
    let most = 0;
    const watch = setInterval(() => (most = Math.max(most, process.memoryUsage().rss)), 20);
    const { target, source } = await copyAll({
      schema: 'CREATE TABLE public.big (id int, v bytea); ALTER TABLE public.big ALTER v SET STORAGE EXTERNAL',
      rows: `INSERT INTO public.big SELECT i, decode(repeat(md5(i::text), 20 * 65536), 'hex') FROM generate_series(1, 10) i`,
    });
    clearInterval(watch);
    const sums = 'SELECT id, md5(v), length(v) FROM public.big ORDER BY id';
    expect(await target.query(sums)).toEqual(await source.query(sums));
    expect(await countRows(target, 'public.big')).toBe(10);
    expect(most - before).toBeLessThan(120 * 1024 * 1024);
  });
});
