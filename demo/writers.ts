import pg from 'pg';

/** One business transaction on each database; together they use sequences, triggers, partitions and a keyless table. */
const WRITES: Record<string, readonly string[]> = {
  shop: [
    `WITH o AS (INSERT INTO orders (customer, placed, note) VALUES (1 + floor(random() * 99999), clock_timestamp(), md5(random()::text)) RETURNING number, placed)
     INSERT INTO items (number, placed, product, quantity) SELECT number, placed, 1 + floor(random() * 4999), 1 FROM o`,
    'UPDATE products SET stock = stock - 1 WHERE id = (SELECT 1 + floor(random() * 4999)::int)',
    `UPDATE orders SET state = 'paid' WHERE number = (SELECT number FROM orders WHERE state = 'new' LIMIT 1)`,
    'DELETE FROM items WHERE id = (SELECT max(id) - 50 FROM items)',
  ],
  'My-Ledger': [
    `WITH t AS (INSERT INTO "General Ledger"."Transfer" ("from", "to", amount, memo) VALUES (1 + floor(random() * 1999), 1 + floor(random() * 1999), 1, 'live') RETURNING "from", "to")
     UPDATE "General Ledger"."Account's ""Book""" SET "Balance" = "Balance" + CASE WHEN "Id" = t."to" THEN 1 ELSE -1 END FROM t WHERE "Id" IN (t."from", t."to") AND t."from" <> t."to"`,
    `INSERT INTO "General Ledger".journal VALUES ('live ' || floor(random() * 9), random())`,
    `DELETE FROM "General Ledger".journal WHERE line = 'live ' || floor(random() * 9)`,
  ],
};

export interface Writers {
  /** Transactions that the source has acknowledged so far. */
  committed(): number;
  /** Why each database's writer has ended, e.g. because the source was fenced; empty while all write. */
  ended(): string[];
  /** Ends them between two transactions. */
  stop(): Promise<void>;
}

/** One connection a database, writing as fast as `perSecond` allows until it is stopped or refused. */
export function startWriters(uri: (database: string) => string, perSecond: number): Writers {
  let stopping = false;
  let committed = 0;
  const ended: string[] = [];
  const write = async (database: string, statements: readonly string[]): Promise<void> => {
    const client = new pg.Client({ connectionString: uri(database), application_name: 'demo writer' });
    // What ends a session that is idle just then comes here; the next statement only says that there is none.
    let end: Error | null = null;
    client.on('error', (error: Error) => (end ??= error));
    try {
      await client.connect();
      for (let n = 0; !stopping; n += 1) {
        const due = performance.now() + 1000 / perSecond;
        await client.query(statements[n % statements.length] ?? '');
        committed += 1;
        const pause = due - performance.now();
        if (pause > 0) await new Promise((resolve) => setTimeout(resolve, pause));
      }
    } catch (error) {
      const cause = end ?? error;
      ended.push(`${database}: ${cause instanceof Error ? cause.message : String(cause)}.`);
    } finally {
      await client.end().catch(() => undefined);
    }
  };
  const all = Object.entries(WRITES).map(([database, statements]) => write(database, statements));
  return {
    committed: () => committed,
    ended: () => [...ended],
    stop: async () => {
      stopping = true;
      await Promise.all(all);
    },
  };
}
