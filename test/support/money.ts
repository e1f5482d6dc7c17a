import pg from 'pg';

export const MONEY_SCHEMA = `
CREATE TABLE account (id int PRIMARY KEY, balance bigint NOT NULL DEFAULT 1000, moves bigint NOT NULL DEFAULT 0);
INSERT INTO account (id) SELECT g FROM generate_series(1, 100) g;
CREATE TABLE transfer (client int, n int, at bigint GENERATED ALWAYS AS IDENTITY, PRIMARY KEY (client, n));`;

/** Whatever became of an earlier try, it is done once: in one statement, so all of it or nothing. */
const TRANSFER = `
WITH new AS (INSERT INTO transfer (client, n) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING n)
UPDATE account SET balance = balance + CASE id WHEN $3 THEN -1 ELSE 1 END, moves = moves + 1
 WHERE id IN ($3, $4) AND EXISTS (SELECT FROM new)`;

export interface Money {
  acknowledged(): number;
  /** From now on this is where the clients go: what is under way is tried again there. */
  lead(uri: string): void;
  stop(): Promise<void>;
  /** What is wrong on this server, as sentences: a transfer that was acknowledged and is not there, or is there twice. */
  problems(uri: string): Promise<string[]>;
}

/** Clients that move money, each one transfer after the other, and try one again until it is acknowledged. */
export function startMoney(uri: string, clients: number): Money {
  let where = uri;
  let stopping = false;
  const acknowledged = Array.from({ length: clients }, () => 0);
  const run = async (client: number): Promise<void> => {
    for (let n = 1; !stopping;) {
      const at = where;
      const session = new pg.Client({ connectionString: at });
      session.on('error', () => undefined);
      try {
        await session.connect();
        for (; !stopping && where === at; n += 1) {
          await session.query(TRANSFER, [client, n, 1 + (n % 50), 51 + ((n * 7) % 50)]);
          acknowledged[client] = n;
        }
      } catch {
        // Fenced, ended, or not there yet: the same one again.
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
      await session.end().catch(() => undefined);
    }
  };
  const running = Promise.all(acknowledged.map((_, client) => run(client)));
  return {
    acknowledged: () => acknowledged.reduce((sum, n) => sum + n, 0),
    lead: (next) => {
      where = next;
    },
    stop: async () => {
      stopping = true;
      await running;
    },
    problems: async (at) => {
      const session = new pg.Client({ connectionString: at });
      await session.connect();
      try {
        const found: string[] = [];
        for (const [client, most] of acknowledged.entries()) {
          const { rows } = await session.query<{ n: number }>(
            `SELECT n FROM generate_series(1, $2::int) n EXCEPT SELECT n FROM transfer WHERE client = $1 ORDER BY 1 LIMIT 5`,
            [client, most],
          );
          for (const { n } of rows) found.push(`transfer ${n} of client ${client} was acknowledged and is not there`);
        }
        const { rows } = await session.query<{ balance: string; moves: string; transfers: string }>(
          'SELECT sum(balance) AS balance, sum(moves) AS moves, (SELECT count(*) FROM transfer) AS transfers FROM account',
        );
        const [sums] = rows;
        if (sums?.balance !== '100000') found.push(`the balances are ${sums?.balance} in all, and not 100000`);
        if (Number(sums?.moves) !== 2 * Number(sums?.transfers))
          found.push(`${sums?.transfers} transfers have moved money ${sums?.moves} times`);
        return found;
      } finally {
        await session.end();
      }
    },
  };
}
