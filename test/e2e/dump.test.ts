import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startPostgres, type PostgresServer } from '../../lab/postgres-server.ts';
import { expectEqual, leftovers, startMigration } from '../support/live-migration.ts';

const PATIENCE_MS = 120_000;

let source: PostgresServer;
let target: PostgresServer;

beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres({ major: 17 }), startPostgres({ major: 18 })]);
});

afterAll(() => Promise.all([source.remove(), target.remove()]));

/** One row of values a type: the ends of its range, what is special, empty, and NULL in the last row. */
const VALUES: Record<string, string[]> = {
  boolean: ['true', 'false'],
  smallint: ['-32768', '32767'],
  integer: ['-2147483648', '2147483647'],
  bigint: ['-9223372036854775808', '9223372036854775807'],
  real: ['NaN', 'Infinity', '-Infinity', '-0', '1e-45', '3.4028235e38'],
  'double precision': ['NaN', 'Infinity', '-Infinity', '-0', '5e-324', '0.1'],
  numeric: ['NaN', 'Infinity', '-Infinity', '0.000', '-1e1000', '1e-16383'],
  'numeric(10,3)': ['9999999.999', '-0.001'],
  money: ['-92233720368547758.08', '12.34'],
  text: ['', ' ', '\\N', '\\.', 'NULL', 'tab\tline\nreturn\r\\', 'ü€😀'],
  'character(5)': ['a', '     '],
  'character varying(5)': ['', 'a '],
  '"char"': ['x', ''],
  name: ['pg_class'],
  bytea: ['', '\\x00ff0a5c'],
  date: ['0001-01-01 BC', '4713-01-01 BC', 'infinity', '-infinity', '5874897-12-31'],
  time: ['00:00', '24:00', '12:34:56.789012'],
  'time with time zone': ['00:00+15:59', '24:00-15:59'],
  timestamp: ['4713-01-01 00:00:00 BC', 'infinity', '-infinity', '294276-12-31 23:59:59.999999'],
  'timestamp with time zone': [
    '0044-03-15 12:00:00+00 BC',
    'infinity',
    '-infinity',
    '1900-01-01 00:00:00.000001+05:53:28',
  ],
  interval: ['-178000000 years', '1 mon -1 day 00:00:00.000001', '0'],
  'interval day to second(3)': ['3 days 04:05:06.789'],
  uuid: ['00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff'],
  json: ['{"a": 1, "a":  2 }', 'null', '"\\u0000"'],
  jsonb: ['{"b": [1, 2.50, null, "ü"]}', '[]', '1e400'],
  jsonpath: ['$.a[*] ? (@ > 1)'],
  xml: ['<a b="c">d</a>', 'text only'],
  bit: ['0', '1'],
  'bit(9)': ['101010101'],
  'bit varying': ['', '10101010101'],
  inet: ['::1', '192.168.0.1/24', '::ffff:1.2.3.4'],
  cidr: ['10.0.0.0/8', '::/0'],
  macaddr: ['08:00:2b:01:02:03'],
  macaddr8: ['08:00:2b:01:02:03:04:05'],
  point: ['(1,-0)', '(NaN,Infinity)'],
  line: ['{1,2,3}'],
  lseg: ['[(0,0),(1,1)]'],
  box: ['(1,1),(0,0)'],
  path: ['((0,0),(1,1))', '[(0,0)]'],
  polygon: ['((0,0),(1,1),(2,0))'],
  circle: ['<(0,0),1.5>'],
  tsvector: ["'a':1A,2B 'b'", ''],
  tsquery: ["'a' & !'b' | 'c':*", ''],
  int4range: ['empty', '(,)', '[1,10)'],
  numrange: ['[-infinity,NaN)', '[0.10,0.2]'],
  tsrange: ['[-infinity,infinity]'],
  tstzrange: ['[2000-01-01 00:00+00,)'],
  daterange: ['[0001-01-01 BC,0001-01-02 BC)'],
  int8range: ['(,5)'],
  int4multirange: ['{}', '{[1,2),[3,4)}'],
  datemultirange: ['{(,2000-01-01),[2001-01-01,)}'],
  oid: ['4294967295'],
  xid: ['3'],
  xid8: ['18446744073709551615'],
  cid: ['7'],
  tid: ['(4294967295,65535)'],
  pg_lsn: ['FFFFFFFF/FFFFFFFF', '0/0'],
  pg_snapshot: ['10:20:10,14,15'],
  txid_snapshot: ['10:20:10,14,15'],
  regclass: ['own."Table.x"', 'pg_class'],
  regtype: ['own.mood', 'integer'],
  regproc: ['pg_catalog.now'],
  regprocedure: ['pg_catalog.abs(integer)'],
  regoper: ['pg_catalog.||/'],
  regoperator: ['+(integer,integer)'],
  regnamespace: ['own'],
  regcollation: ['"C"'],
  regconfig: ['english'],
  regdictionary: ['simple'],
  regrole: ['postgres'],
  refcursor: ['cursor'],
  'integer[]': ['{}', '{NULL,1}', '[-1:0]={5,6}', '{{1,2},{3,4}}'],
  'text[]': ['{}', '{"",NULL,"NULL","a,b","{","\\\\","\\""}'],
  'timestamp[]': ['{infinity,"0001-01-01 00:00:00 BC"}'],
  'numeric[]': ['{NaN,1.10}'],
  'jsonb[]': ['{"{\\"a\\": 1}"}'],
  'own.mood': ['happy', "it's"],
  'own.mood[]': ['{happy,"it\'s"}', '{}'],
  'own.positive': ['1'],
  'own.positive[]': ['{1,2}'],
  'own.pair': ['(1,"a,b")', '(,)'],
  'own.pair[]': ['{"(1,\\"x y\\")"}'],
  'own.floats': ['[1.5,2.5)', 'empty'],
};

const quote = (text: string): string => `'${text.replaceAll("'", "''")}'`;

/** A table a type, with and without NULL, so that a wrong format breaks one table and not all. */
const TYPES = [
  `CREATE SCHEMA own;
   CREATE TYPE own.mood AS ENUM ('happy', 'it''s'); CREATE DOMAIN own.positive AS int CHECK (VALUE > 0);
   CREATE TYPE own.pair AS (a int, b text); CREATE TYPE own.floats AS RANGE (subtype = float8);
   CREATE TABLE own."Table.x" (id int)`,
  ...Object.entries(VALUES).flatMap(([type, values], index) => [
    `CREATE TABLE own.t${index} (id int, value ${type})`,
    `INSERT INTO own.t${index} VALUES ${[...values.map(quote), 'NULL'].map((value, id) => `(${id}, ${value}${value === 'NULL' ? '' : `::${type}`})`).join(', ')}`,
  ]),
].join(';\n');

const columns = (count: number): string =>
  Array.from({ length: count }, (_, n) => `c${n} ${['int', 'text', 'numeric', 'timestamptz'][n % 4]}`).join(', ');

const SHAPES = `
CREATE TABLE nothing (); INSERT INTO nothing DEFAULT VALUES; INSERT INTO nothing DEFAULT VALUES; INSERT INTO nothing DEFAULT VALUES;
CREATE TABLE empty (id int PRIMARY KEY);
CREATE TABLE wide (${columns(300)}); INSERT INTO wide (c0, c1, c298, c299) VALUES (1, 'x', 2.50, '2000-01-01'), (2, NULL, 'NaN', 'infinity');
CREATE TABLE keyless (a int, b text); INSERT INTO keyless SELECT g % 3, 'same' FROM generate_series(1, 100) g;
CREATE TABLE dropped (a int, gone text, b text); INSERT INTO dropped VALUES (1, 'g', 'b'); ALTER TABLE dropped DROP COLUMN gone, ADD later int DEFAULT 7;
CREATE TABLE generated (id int GENERATED ALWAYS AS IDENTITY (START 10 INCREMENT 5) PRIMARY KEY, by_default bigint GENERATED BY DEFAULT AS IDENTITY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED, last text);
INSERT INTO generated (a, last) SELECT g, 'l' || g FROM generate_series(1, 50) g;
CREATE TABLE parent (id int, region text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE parent_a (region text NOT NULL, id int NOT NULL); ALTER TABLE parent ATTACH PARTITION parent_a FOR VALUES IN ('a');
CREATE TABLE parent_rest PARTITION OF parent DEFAULT PARTITION BY HASH (id);
CREATE TABLE parent_0 PARTITION OF parent_rest FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE parent_1 PARTITION OF parent_rest FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO parent SELECT g, chr(97 + g % 3) FROM generate_series(1, 300) g;
CREATE TABLE base (a int); CREATE TABLE child (b int) INHERITS (base); INSERT INTO base VALUES (1); INSERT INTO child VALUES (2, 3);
CREATE TABLE audit (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.audit (what) VALUES (TG_OP || NEW.id); RETURN NEW; END $$;
CREATE TABLE hen (id int PRIMARY KEY, hatched_from int); CREATE TRIGGER noted BEFORE INSERT OR UPDATE ON hen FOR EACH ROW EXECUTE FUNCTION note();
CREATE TABLE egg (id int PRIMARY KEY, laid_by int NOT NULL REFERENCES hen); ALTER TABLE hen ADD FOREIGN KEY (hatched_from) REFERENCES egg;
INSERT INTO hen VALUES (1), (2); INSERT INTO egg VALUES (1, 2), (2, 1); UPDATE hen SET hatched_from = id;
CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY); INSERT INTO unlogged VALUES (1), (2);
CREATE TABLE toasted (id int PRIMARY KEY, external text STORAGE EXTERNAL, compressed text);
INSERT INTO toasted SELECT g, repeat(md5(g::text), 3000), repeat('x', 100000) FROM generate_series(1, 20) g;
CREATE SEQUENCE never_used START 42; CREATE SEQUENCE used INCREMENT -3 MINVALUE -1000 MAXVALUE 5 CYCLE; SELECT nextval('used'), nextval('used');
CREATE SEQUENCE big AS bigint MAXVALUE 9223372036854775807; SELECT setval('big', 9223372036854775806);
CREATE MATERIALIZED VIEW first AS SELECT count(*) AS n FROM keyless; CREATE VIEW between_them AS SELECT n + 1 AS n FROM first;
CREATE MATERIALIZED VIEW a_second AS SELECT n * 2 AS n FROM between_them; CREATE UNIQUE INDEX ON a_second (n);
CREATE MATERIALIZED VIEW unpopulated AS SELECT 1 AS one WITH NO DATA;
`;

const LARGE_OBJECTS = `
CREATE ROLE lo_owner; CREATE ROLE lo_reader;
SELECT lo_from_bytea(4001, ''), lo_from_bytea(4002, decode(repeat('00ff5c', 700000), 'hex')), lo_from_bytea(4003, 'three');
ALTER LARGE OBJECT 4002 OWNER TO lo_owner; GRANT SELECT ON LARGE OBJECT 4003 TO lo_reader; COMMENT ON LARGE OBJECT 4003 IS 'It''s three';
SELECT lo_put(lo_from_bytea(4004, ''), 5000000, 'after a hole');
`;

const LARGE_OBJECTS_SEEN = `
SELECT string_agg(concat_ws(' ', m.oid, pg_get_userbyid(lomowner), lomacl::text, md5(lo_get(m.oid)), length(lo_get(m.oid)), obj_description(m.oid, 'pg_largeobject')), E'\\n' ORDER BY m.oid)
  FROM pg_largeobject_metadata m`;

/** What a database is made of, but for rows: what every object's definition says, owners, grants and comments. */
const SCHEMA_SEEN = `
SELECT string_agg(what, E'\\n' ORDER BY what COLLATE "C") FROM (
  SELECT concat_ws(' ', 'relation', c.oid::regclass::text, relkind, relpersistence, relispopulated, pg_get_userbyid(relowner), relacl::text, relreplident) AS what
    FROM pg_class c WHERE c.oid >= 16384 AND relkind IN ('r', 'p', 'v', 'm', 'S', 'c')
  UNION ALL SELECT concat_ws(' ', 'column', attrelid::regclass::text, attname, format_type(atttypid, atttypmod), attnotnull, attidentity, attgenerated, attstorage, pg_get_expr(adbin, adrelid))
    FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid LEFT JOIN pg_attrdef d ON adrelid = attrelid AND adnum = attnum
   WHERE attrelid >= 16384 AND relkind <> 'i' AND relkind <> 't' AND attnum > 0 AND NOT attisdropped
  UNION ALL SELECT 'index ' || pg_get_indexdef(indexrelid) || indisvalid FROM pg_index WHERE indrelid >= 16384 AND indrelid::regclass::text NOT LIKE 'pg_toast%'
  UNION ALL SELECT concat_ws(' ', 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid), convalidated) FROM pg_constraint WHERE oid >= 16384 AND contype <> 'n'
  UNION ALL SELECT 'sequence ' || seqrelid::regclass::text || ' ' || concat_ws(' ', seqstart, seqincrement, seqmax, seqmin, seqcycle, seqtypid::regtype) FROM pg_sequence
) AS everything`;

async function migrate(database: string, method: 'dump' | 'schema-only', look: () => Promise<void>): Promise<void> {
  const migration = await startMigration({ source, target, databases: [database], plan: { method, onError: 'fail' } });
  try {
    const report = await migration.report();
    expect(report.databases[0]).toMatchObject({ database, method, status: 'done', walAfterMarkBytes: null });
    expect(migration.worker.output()).not.toContain('Activity failed');
    await look();
    const schema = async (server: PostgresServer) => (await server.psql(database, SCHEMA_SEEN)).split('\n');
    expect(await schema(target)).toEqual(await schema(source));
    expect(await leftovers(source, target, [database])).toEqual([]);
  } finally {
    await migration.close();
  }
}

describe('the dump method', () => {
  test(
    'carries every built-in type, and types made of them, with every special value',
    { timeout: PATIENCE_MS },
    async () => {
      await source.psql('postgres', 'CREATE DATABASE types');
      await source.psql('types', TYPES);
      const kinds = await source.psql(
        'types',
        `SELECT string_agg(typname, ' ' ORDER BY 1) FROM pg_type t WHERE typtype IN ('b', 'r', 'm') AND oid < 16384 AND typelem = 0 AND typname !~ '^(_|pg_(node_tree|ndistinct|dependencies|mcv_list|ddl|brin)|gtsvector|aclitem|(int8|num|ts|tstz)multirange)'
         AND NOT EXISTS (SELECT FROM pg_attribute WHERE atttypid = t.oid AND attrelid >= 16384)`,
      );
      expect(kinds).toBe('');
      await migrate('types', 'dump', () => expectEqual(source, target, ['types']));
    },
  );

  test('carries tables of every shape, sequences, views and large objects', { timeout: PATIENCE_MS }, async () => {
    await source.psql('postgres', 'CREATE DATABASE shapes');
    await source.psql('shapes', SHAPES + LARGE_OBJECTS);
    await migrate('shapes', 'dump', async () => {
      await expectEqual(source, target, ['shapes']);
      const objects = await source.psql('shapes', LARGE_OBJECTS_SEEN);
      expect(objects.split('\n')).toHaveLength(4);
      expect(await target.psql('shapes', LARGE_OBJECTS_SEEN)).toBe(objects);
      const next = `SELECT nextval('used'), nextval('never_used'), nextval(pg_get_serial_sequence('generated', 'id'))`;
      expect(await target.psql('shapes', next)).toBe(await source.psql('shapes', next));
    });
  });
});

describe('the schema-only method', () => {
  test('carries every definition and not a row', { timeout: PATIENCE_MS }, async () => {
    await source.psql('postgres', 'CREATE DATABASE schema_only');
    await source.psql(
      'schema_only',
      SHAPES.replace(
        'CREATE MATERIALIZED VIEW first AS SELECT count(*) AS n FROM keyless;',
        'CREATE MATERIALIZED VIEW first AS SELECT count(*) AS n FROM keyless WITH NO DATA;',
      ).replace('FROM between_them; CREATE', 'FROM between_them WITH NO DATA; CREATE'),
    );
    await migrate('schema_only', 'schema-only', async () => {
      const counts = await target.psql(
        'schema_only',
        `SELECT format('SELECT count(*) FROM ONLY %s', oid::regclass) FROM pg_class WHERE relkind = 'r' AND oid >= 16384 \\gexec`,
      );
      expect([...new Set(counts.split('\n'))]).toEqual(['0']);
    });
  });
});
