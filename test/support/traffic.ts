import pg from 'pg';

/** Keys, partitions, a foreign key, an identity, a keyless table, TOAST, a trigger and names that need quotes. */
export const TRAFFIC_SCHEMA = `
CREATE TABLE account (id int PRIMARY KEY, balance bigint NOT NULL);
INSERT INTO account SELECT g, 1000 FROM generate_series(1, 500) g;
CREATE SEQUENCE "Order Number" INCREMENT 3;
CREATE TABLE "Order.s" ("No" bigint NOT NULL DEFAULT nextval('"Order Number"'), account int NOT NULL REFERENCES account, at int NOT NULL, note text, PRIMARY KEY ("No", at)) PARTITION BY RANGE (at);
CREATE TABLE "Order.s 1" PARTITION OF "Order.s" FOR VALUES FROM (0) TO (50);
CREATE TABLE "Order.s 2" PARTITION OF "Order.s" FOR VALUES FROM (50) TO (100);
CREATE INDEX "note;""idx" ON "Order.s" (note);
INSERT INTO "Order.s" (account, at, note) SELECT 1 + g % 500, g % 100, md5(g::text) FROM generate_series(1, 20000) g;
CREATE TABLE log (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text, big text);
CREATE TABLE keyless (a int, b text); ALTER TABLE keyless REPLICA IDENTITY FULL;
INSERT INTO keyless SELECT g % 10, 'same' FROM generate_series(1, 100) g;
CREATE FUNCTION note_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.log (what, big) VALUES (TG_OP, repeat(md5(NEW.id::text), 200)); RETURN NULL; END $$;
CREATE TRIGGER changed AFTER UPDATE ON account FOR EACH ROW WHEN (NEW.id % 20 = 0) EXECUTE FUNCTION note_change();
CREATE MATERIALIZED VIEW total AS SELECT count(*) AS accounts FROM account;
`;

const WRITES = [
  `WITH moved AS (UPDATE account SET balance = balance - 1 WHERE id = (SELECT 1 + floor(random() * 499)::int) RETURNING id)
   UPDATE account SET balance = balance + 1 WHERE id = (SELECT 1 + id % 500 FROM moved)`,
  `INSERT INTO "Order.s" (account, at, note) VALUES (1 + floor(random() * 499), floor(random() * 100), 'live')`,
  `UPDATE "Order.s" SET at = (at + 50) % 100 WHERE "No" = (SELECT "No" FROM "Order.s" ORDER BY "No" DESC OFFSET 20 LIMIT 1)`,
  `DELETE FROM "Order.s" WHERE "No" = (SELECT min("No") FROM "Order.s")`,
  `UPDATE keyless SET b = 'live' WHERE ctid = (SELECT min(ctid) FROM keyless)`,
  `INSERT INTO keyless VALUES (11, 'new')`,
];

export interface Traffic {
  /** Transactions that the server has acknowledged. */
  committed(): number;
  /** Ends after the current transaction; also when the server has refused one. */
  stop(): Promise<void>;
}

/** One connection that writes `perSecond` transactions until it is stopped or refused. */
export function startTraffic(uri: string, perSecond: number, writes: readonly string[] = WRITES): Traffic {
  let committed = 0;
  let stopping = false;
  const run = async (): Promise<void> => {
    const client = new pg.Client({ connectionString: uri, application_name: 'traffic' });
    client.on('error', () => undefined);
    try {
      await client.connect();
      for (; !stopping; committed += 1) {
        const due = performance.now() + 1000 / perSecond;
        await client.query(writes[committed % writes.length] ?? '');
        await new Promise((resolve) => setTimeout(resolve, Math.max(0, due - performance.now())));
      }
    } catch (error) {
      // 57P01: the fence has ended the session, in a query or between two; 25006: the database was read-only.
      const { code = '', message } = error as Error & { code?: string };
      if (!['57P01', '25006'].includes(code) && !/not queryable|terminated/.test(message)) throw error;
    } finally {
      await client.end().catch(() => undefined);
    }
  };
  const running = run();
  running.catch(() => undefined);
  return {
    committed: () => committed,
    stop: () => {
      stopping = true;
      return running;
    },
  };
}
