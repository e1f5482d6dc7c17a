import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import type { PostgresAccess } from '../../lab/postgres-access.ts';

const ACCOUNTS = 500;
const OPENING_BALANCE = 1000;

/**
 * A bank: money that is only moved, a history with a row for every transfer, and beside them a table that is copied in
 * pieces, long values, partitions, a keyless table, sequences, a trigger and a materialized view; and branches, whose
 * tables and foreign keys are so many that several sessions make them.
 */
export const BANK = `
CREATE TABLE account (id int PRIMARY KEY, balance bigint NOT NULL);
INSERT INTO account SELECT g, ${OPENING_BALANCE} FROM generate_series(1, ${ACCOUNTS}) g;
CREATE TABLE history (writer text, n int, payer int NOT NULL REFERENCES account, payee int NOT NULL REFERENCES account,
  amount int NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp(), PRIMARY KEY (writer, n));
CREATE INDEX ON history (payer);
CREATE TABLE big (id bigint PRIMARY KEY, account int NOT NULL REFERENCES account, filler text NOT NULL);
INSERT INTO big SELECT g, 1 + g % ${ACCOUNTS}, repeat(md5(g::text), 6) FROM generate_series(1, 18000) g;
CREATE INDEX big_account ON big (account);
CREATE UNIQUE INDEX ON big (filler, id);
CREATE TABLE document (id int PRIMARY KEY, version int NOT NULL, body text NOT NULL);
INSERT INTO document SELECT g, 0, (SELECT string_agg(md5(g::text || h), '') FROM generate_series(1, 200) h) FROM generate_series(1, 200) g;
CREATE SEQUENCE "Order Number" INCREMENT 3;
CREATE TABLE "Order.s" ("No" bigint NOT NULL DEFAULT nextval('"Order Number"'), account int NOT NULL REFERENCES account,
  at int NOT NULL, note text, PRIMARY KEY ("No", at)) PARTITION BY RANGE (at);
CREATE TABLE "Order.s 1" PARTITION OF "Order.s" FOR VALUES FROM (0) TO (50);
CREATE TABLE "Order.s 2" PARTITION OF "Order.s" FOR VALUES FROM (50) TO (100);
INSERT INTO "Order.s" (account, at, note) SELECT 1 + g % ${ACCOUNTS}, g % 100, md5(g::text) FROM generate_series(1, 8000) g;
CREATE INDEX ON "Order.s" (note);
CREATE TABLE log (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text);
CREATE TABLE keyless (a int, b text); ALTER TABLE keyless REPLICA IDENTITY FULL;
INSERT INTO keyless SELECT g % 10, 'same' FROM generate_series(1, 100) g;
CREATE FUNCTION note_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.log (what) VALUES (TG_OP); RETURN NULL; END $$;
CREATE TRIGGER changed AFTER UPDATE ON account FOR EACH ROW WHEN (NEW.id % 20 = 0) EXECUTE FUNCTION note_change();
CREATE MATERIALIZED VIEW total AS SELECT count(*) AS accounts FROM account;
SELECT lo_from_bytea(0, decode(repeat('ab', 5000), 'hex'));
DO $$ BEGIN
  FOR n IN 1 .. 60 LOOP
    EXECUTE format('CREATE TABLE branch_%s (id int PRIMARY KEY, name text)', n);
    EXECUTE format('INSERT INTO branch_%s SELECT g, md5(g::text) FROM generate_series(1, 5) g', n);
    IF n % 4 <> 1 THEN EXECUTE format('ALTER TABLE branch_%s ADD FOREIGN KEY (id) REFERENCES branch_%s', n, n - 1); END IF;
  END LOOP;
END $$;
`;

/** One statement, so that it is there or not; never from an account to itself. */
const TRANSFER = `
WITH payer AS (UPDATE account SET balance = balance - $5 WHERE id = $3), payee AS (UPDATE account SET balance = balance + $5 WHERE id = $4)
INSERT INTO history (writer, n, payer, payee, amount) VALUES ($1, $2, $3, $4, $5)`;

/** What else happens; nobody counts it. */
const OTHER = [
  `INSERT INTO "Order.s" (account, at, note) VALUES (1 + floor(random() * ${ACCOUNTS - 1}), floor(random() * 100), 'live')`,
  `UPDATE big SET account = 1 + (account + 7) % ${ACCOUNTS} WHERE id = floor(random() * 18000)`,
  `UPDATE "Order.s" SET at = (at + 50) % 100 WHERE "No" = (SELECT max("No") FROM "Order.s")`,
  `UPDATE document SET version = version + 1 WHERE id = floor(random() * 200)`,
  `DELETE FROM "Order.s" WHERE "No" = (SELECT min("No") FROM "Order.s")`,
  `UPDATE keyless SET b = 'live' WHERE ctid = (SELECT min(ctid) FROM keyless)`,
  `UPDATE document SET body = body || 'x' WHERE id = floor(random() * 200)`,
  `INSERT INTO keyless VALUES (11, 'new')`,
  `DELETE FROM big WHERE id = floor(random() * 18000)`,
  `SELECT lo_put((SELECT min(oid) FROM pg_largeobject_metadata), floor(random() * 6000)::int, '\\x01')`,
  `SELECT lo_from_bytea(0, convert_to(random()::text, 'UTF8'))`,
  // To another range of the key, where it is copied in ranges.
  `UPDATE big SET id = -id WHERE id = floor(random() * 18000) AND id > 0`,
];

export interface Bank {
  /** Transfers that a server has acknowledged so far. */
  committed(): number;
  /** Leads the writers to another server; null: to none, until they are led on. */
  lead(server: PostgresAccess | null): void;
  /** Ends after the current transaction, and answers when every transfer is known to be there or not. */
  stop(): Promise<void>;
  /** What is wrong with the bank in this database, after the end: one sentence each. */
  audit(server: PostgresAccess): Promise<string[]>;
}

/** Writers that go on after whatever happens to the server, until they are stopped. */
export function openBank(first: PostgresAccess, database: string, writers: number, perSecond: number): Bank {
  let server: PostgresAccess | null = first;
  let stopping = false;
  let committed = 0;
  /** By writer: the transfers that are there. What nobody knows is looked up after the connection is back. */
  const acknowledged = new Map<string, Set<number>>();

  const write = async (writer: string): Promise<void> => {
    const mine = new Set<number>();
    acknowledged.set(writer, mine);
    let unknown: number | null = null;
    let n = 0;
    let client: pg.Client | null = null;
    let leadTo = server;
    // What is not known at the end is asked for as long as it takes: the server comes back before the run ends.
    while (!stopping || unknown !== null) {
      try {
        if (leadTo !== server) {
          await client?.end().catch(() => undefined);
          client = null;
          leadTo = server;
        }
        if (leadTo === null) {
          await delay(100);
          continue;
        }
        client ??= await connect(leadTo, database);
        if (unknown !== null) {
          const { rowCount } = await client.query('SELECT FROM history WHERE writer = $1 AND n = $2', [
            writer,
            unknown,
          ]);
          if (rowCount === 1) mine.add(unknown);
          unknown = null;
          continue;
        }
        const due = performance.now() + 1000 / perSecond;
        n += 1;
        const payer = 1 + Math.floor(Math.random() * ACCOUNTS);
        const payee = 1 + ((payer + Math.floor(Math.random() * (ACCOUNTS - 1))) % ACCOUNTS);
        unknown = n;
        await client.query(TRANSFER, [writer, n, payer, payee, 1 + Math.floor(Math.random() * 9)]);
        unknown = null;
        mine.add(n);
        committed += 1;
        await client.query(OTHER[n % OTHER.length] ?? '');
        await delay(Math.max(0, due - performance.now()));
      } catch {
        await client?.end().catch(() => undefined);
        client = null;
        await delay(100);
      }
    }
    await client?.end().catch(() => undefined);
  };

  const running = Promise.all(Array.from({ length: writers }, (_, index) => write(`writer ${index}`)));
  return {
    committed: () => committed,
    lead: (next) => {
      server = next;
    },
    stop: async () => {
      stopping = true;
      await running;
    },
    audit: async (side) => {
      const problems: string[] = [];
      const money = await side.psql(database, 'SELECT sum(balance) FROM account');
      if (Number(money) !== ACCOUNTS * OPENING_BALANCE)
        problems.push(`The accounts hold ${money} instead of ${ACCOUNTS * OPENING_BALANCE}.`);
      const rows = await side.psql(database, "SELECT writer || '|' || n FROM history");
      const there = new Set(rows.split('\n').filter((row) => row !== ''));
      const known = new Set([...acknowledged].flatMap(([writer, list]) => [...list].map((n) => `${writer}|${n}`)));
      const lost = [...known].filter((row) => !there.has(row));
      const made = [...there].filter((row) => !known.has(row));
      if (lost.length > 0)
        problems.push(`${lost.length} acknowledged transfers are lost: ${lost.slice(0, 5).join(', ')}.`);
      if (made.length > 0)
        problems.push(`${made.length} transfers were never acknowledged: ${made.slice(0, 5).join(', ')}.`);
      return problems;
    },
  };
}

async function connect(server: PostgresAccess, database: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: server.uri(database), application_name: 'bank' });
  client.on('error', () => undefined);
  await client.connect();
  return client;
}
