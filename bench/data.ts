import type { PostgresServer } from '../lab/postgres-server.ts';

export type DataSetName = 'mixed' | 'many' | 'onebig';

export interface DataSet {
  /** At scale 1, for the report. */
  description: string;
  /** What psql makes the rows, keys and indexes of. The same scale and seed make the same rows, on every version. */
  sql(scale: number, seed: number): string;
}

/** A number of 64 bits, spread evenly, that only depends on the row and the seed: random() differs between versions. */
const random = (row: string, seed: number, salt = 0): string => `hashint8extended(${row}, ${seed * 1000 + salt})`;
/** From 0 to `most - 1`. */
const below = (most: number, row: string, seed: number, salt = 0): string =>
  `((${random(row, seed, salt)} & 2147483647) % ${Math.max(1, Math.round(most))})`;
const words = (count: number, row: string, seed: number): string =>
  Array.from({ length: count }, (_, i) => `md5(${row}::text || '${seed}.${i}')`).join(` || ' ' || `);

/** Keys and indexes after the rows, as whoever loads much does it. */
function mixed(scale: number, seed: number): string {
  const n = (rows: number): number => Math.max(10, Math.round(rows * scale));
  const [accounts, orders, events] = [n(780_000), n(1_240_000), n(3_770_000)];
  const at = (row: string, salt: number): string =>
    `'2020-01-01Z'::timestamptz + ${below(180_000_000, row, seed, salt)} * interval '1 second'`;
  return `
CREATE TABLE accounts (id int NOT NULL, email text NOT NULL, name text NOT NULL, joined date NOT NULL, settings jsonb NOT NULL);
INSERT INTO accounts SELECT g, 'user' || ${random('g', seed)} || '@example.org', md5(g::text), '2015-01-01'::date + (g % 3000),
    jsonb_build_object('language', (ARRAY['de','en','fr'])[1 + g % 3], 'token', md5('t' || g), 'limit', g % 500)
  FROM generate_series(1, ${accounts}) g;
CREATE TABLE orders (id bigint NOT NULL, account int NOT NULL, placed timestamptz NOT NULL, state text NOT NULL, total numeric(12,2) NOT NULL, note text);
INSERT INTO orders SELECT g, 1 + ${below(accounts, 'g', seed, 1)}, ${at('g', 2)}, (ARRAY['new','paid','sent','back'])[1 + g % 4], (g % 100000) / 100.0, ${words(2, 'g', seed)}
  FROM generate_series(1, ${orders}) g;
CREATE TABLE items (order_id bigint NOT NULL, line int NOT NULL, sku text NOT NULL, quantity int NOT NULL, price numeric(10,2) NOT NULL);
INSERT INTO items SELECT 1 + g / 2, g % 2, 'sku-' || ${below(50_000, 'g', seed, 3)}, 1 + g % 9, (g % 9999) / 100.0
  FROM generate_series(1, ${2 * orders - 2}) g;
CREATE TABLE events (id bigint NOT NULL, account int NOT NULL, at timestamptz NOT NULL, kind text NOT NULL, amount float8 NOT NULL, payload text NOT NULL);
INSERT INTO events SELECT g, 1 + ${below(accounts, 'g', seed, 4)}, ${at('g', 5)}, (ARRAY['view','click','buy'])[1 + g % 3], g / 7.0, ${words(5, 'g', seed)}
  FROM generate_series(1, ${events}) g;
CREATE TABLE documents (id uuid NOT NULL, title text NOT NULL, body text NOT NULL);
INSERT INTO documents SELECT md5(g::text || '${seed}')::uuid, 'Document ' || ${random('g', seed, 6)}, (SELECT string_agg(md5(g || '.' || i), ' ') FROM generate_series(1, 150) i)
  FROM generate_series(1, ${n(14_000)}) g;
CREATE TABLE codes (code text NOT NULL, meaning text NOT NULL);
INSERT INTO codes SELECT 'code-' || g, ${words(2, 'g', seed)} FROM generate_series(1, ${n(100_000)}) g;

ALTER TABLE accounts ADD PRIMARY KEY (id);
ALTER TABLE orders ADD PRIMARY KEY (id);
ALTER TABLE items ADD PRIMARY KEY (order_id, line);
ALTER TABLE events ADD PRIMARY KEY (id);
ALTER TABLE documents ADD PRIMARY KEY (id);
ALTER TABLE codes ADD PRIMARY KEY (code);
CREATE UNIQUE INDEX ON accounts (email);
CREATE INDEX ON orders (account, placed);
CREATE INDEX ON items (sku);
CREATE INDEX ON events (account);
CREATE INDEX ON events (at);
CREATE INDEX ON documents (title);
ALTER TABLE orders ADD FOREIGN KEY (account) REFERENCES accounts, ADD CHECK (total >= 0);
ALTER TABLE items ADD FOREIGN KEY (order_id) REFERENCES orders;
ALTER TABLE events ADD FOREIGN KEY (account) REFERENCES accounts;`;
}

/** Each table refers to the one before it, but for the first of each ten. psql's \gexec commits each statement. */
function many(scale: number, seed: number): string {
  const tables = Math.max(10, Math.round(2000 * scale));
  return `
SELECT format('CREATE TABLE t%s (id int NOT NULL, ref int NOT NULL, label text NOT NULL, at timestamptz NOT NULL)', n),
       format('INSERT INTO t%s SELECT g, 1 + %L::int * g %% 100, md5(g || ''.%s.${seed}''), ''2024-01-01Z''::timestamptz + g * interval ''1 hour'' FROM generate_series(1, 100) g', n, n, n),
       format('ALTER TABLE t%s ADD PRIMARY KEY (id)', n),
       format('CREATE INDEX ON t%s (ref)', n)
  FROM generate_series(1, ${tables}) n \\gexec
SELECT format('ALTER TABLE t%s ADD FOREIGN KEY (ref) REFERENCES t%s', n, n - 1) FROM generate_series(1, ${tables}) n WHERE n % 10 <> 1 \\gexec`;
}

function onebig(scale: number, seed: number): string {
  const rows = Math.max(10, Math.round(4_050_000 * scale));
  return `
CREATE TABLE measurements (id bigint NOT NULL, device int NOT NULL, at timestamptz NOT NULL, kind text NOT NULL, value float8 NOT NULL, note text NOT NULL);
INSERT INTO measurements SELECT g, ${below(200_000, 'g', seed)}, '2020-01-01Z'::timestamptz + ${below(180_000_000, 'g', seed, 1)} * interval '1 second',
    'kind-' || ${below(5000, 'g', seed, 2)}, g / 7.0, ${words(5, 'g', seed)}
  FROM generate_series(1, ${rows}) g;
ALTER TABLE measurements ADD PRIMARY KEY (id);
CREATE INDEX ON measurements (device);
CREATE INDEX ON measurements (at);
CREATE INDEX ON measurements (kind);`;
}

export const DATA_SETS: Readonly<Record<DataSetName, DataSet>> = {
  mixed: { description: '1.5 GB in 6 tables with 12 indexes, one table 60 % of it', sql: mixed },
  many: { description: '2,000 small tables with keys, indexes and foreign keys', sql: many },
  onebig: { description: '1 GB in one table with a key and 3 secondary indexes', sql: onebig },
};

/** What a data set came to. */
export interface LoadedSet {
  name: DataSetName;
  tables: number;
  indexes: number;
  /** Heaps with TOAST. */
  bytes: number;
  /** Share of the biggest table. */
  biggest: number;
}

/** Makes the database of a set on the source, vacuumed, so that its first reader does not set hint bits for the others. */
export async function loadDataSet(
  source: PostgresServer,
  name: DataSetName,
  { scale, seed }: { scale: number; seed: number },
): Promise<LoadedSet> {
  await source.psql('postgres', `CREATE DATABASE ${name}`);
  await source.psql(name, `${DATA_SETS[name].sql(scale, seed)}\nVACUUM ANALYZE;`);
  const sizes = await source.psql(
    name,
    `SELECT json_build_object('tables', count(*), 'bytes', sum(pg_table_size(oid)), 'biggest', max(pg_table_size(oid)) / sum(pg_table_size(oid))::float8,
                              'indexes', (SELECT count(*) FROM pg_indexes WHERE schemaname = 'public'))
       FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace`,
  );
  return { name, ...(JSON.parse(sizes) as Omit<LoadedSet, 'name'>) };
}
