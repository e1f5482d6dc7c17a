import { cpus, loadavg } from 'node:os';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { PostgresServer } from '../../lab/postgres-server.ts';
import { startPostgres } from '../../lab/postgres-server.ts';
import { inspectCluster, inspectDatabases } from './preflight-support.ts';

const DATABASES = 50;
const TABLES = 100;
/** What validateCluster inspects at once. */
const AT_ONCE = 8;

let source: PostgresServer;
let target: PostgresServer;

beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres({ major: 17 }), startPostgres({ major: 18 })]);
  await source.psql('postgres', 'CREATE DATABASE d1');
  await source.psql(
    'd1',
    `SELECT format('CREATE TABLE t%s (id serial PRIMARY KEY, v text, CHECK (length(v) < 100))', i) FROM generate_series(1, ${TABLES}) AS i \\gexec`,
  );
  for (let i = 2; i <= DATABASES; i++)
    await source.psql('postgres', `CREATE DATABASE d${i} TEMPLATE d1 STRATEGY file_copy`);
});

afterAll(() => Promise.all([source, target].map((server) => server.remove())));

/** What the source was asked so far; the session that the target tries for each database is a walsender, and not counted. */
async function asked(): Promise<{ sessions: number; transactions: number }> {
  const rows = await source.psql(
    'postgres',
    `SELECT sum(sessions), sum(xact_commit + xact_rollback) FROM pg_stat_database`,
  );
  const [sessions = 0, transactions = 0] = rows.split('|').map(Number);
  return { sessions, transactions };
}

it(`${DATABASES} databases of ${TABLES} tables are inspected in 5 s, over one connection to each`, async () => {
  const servers = { source: source.uri(), target: target.uri() };
  const plan = { tables: { include: Array.from({ length: TABLES }, (_, i) => `t${i + 1}`) } };
  const inspect = async () => {
    const before = await asked();
    const started = performance.now();
    const { databases } = await inspectCluster(servers, plan);
    const inspections = await inspectDatabases(servers, databases, AT_ONCE, plan);
    const seconds = (performance.now() - started) / 1000;
    const after = await asked();
    const tables = inspections.reduce((sum, inspection) => sum + inspection.tables, 0);
    return {
      ...{ tables, seconds, busy: loadavg()[0] ?? 0 },
      connections: after.sessions - before.sessions,
      transactions: after.transactions - before.transactions,
    };
  };
  // The servers' caches are cold at first.
  const runs = [await inspect(), await inspect(), await inspect()];
  for (const { tables, connections, transactions } of runs) {
    expect(tables).toBe(DATABASES * TABLES);
    // And a few for what is about the servers.
    expect(connections).toBeLessThanOrEqual(DATABASES + 10);
    // Nothing is asked for each table or each name of a filter.
    expect(transactions).toBeLessThan(DATABASES * TABLES);
  }
  // A machine that does more than this at the time is given so much more of it.
  const seconds = runs.map((run) => run.seconds / Math.max(1, run.busy / cpus().length));
  expect(Math.min(...seconds)).toBeLessThan(5);
});
