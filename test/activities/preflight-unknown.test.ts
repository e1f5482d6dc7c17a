import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { PostgresServer } from '../../lab/postgres-server.ts';
import { startPostgres } from '../../lab/postgres-server.ts';
import { parsePlan } from '../../src/domain/plan.ts';
import { connect } from '../../src/postgres/connection.ts';
import { completeConnInfo, parseConnInfo } from '../../src/postgres/conninfo.ts';
import { listTables } from '../../src/postgres/scope.ts';
import type { DatabaseContext } from '../../src/preflight/check.ts';
import { runChecks } from '../../src/preflight/check.ts';
import { CHECKS } from '../../src/preflight/checks.ts';

let source: PostgresServer;
let target: PostgresServer;
let context: DatabaseContext;

const open = (server: PostgresServer, side: 'source' | 'target') =>
  connect(
    { server: side, info: completeConnInfo(parseConnInfo(server.uri('dark', { user: 'blind' }), 'test'), {}) },
    { applicationName: 'pgtransit_0123456789ab_control', settings: { default_transaction_read_only: 'on' } },
  );

beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres({ major: 17 }), startPostgres({ major: 18 })]);
  for (const server of [source, target]) {
    await server.psql('postgres', 'CREATE ROLE blind LOGIN CREATEROLE; CREATE DATABASE dark');
    await server.psql('dark', 'CREATE TABLE t (id int PRIMARY KEY)');
  }
  const plan = parsePlan({
    maxTotalBytes: 0,
    tables: { include: ['t'], exclude: ['u'] },
    stop: { fence: 'read-only' },
    snapshot: { rangeBytes: 1 },
  });
  const sessions = { source: await open(source, 'source'), target: await open(target, 'target') };
  context = {
    ...sessions,
    plan,
    database: 'dark',
    databases: [{ database: 'dark', sourceOid: 1, bytes: 1024 ** 4 }],
    replication: true,
    method: 'replication',
    sourceForTarget: completeConnInfo(parseConnInfo(source.uri('dark'), 'test'), {}),
    own: null,
    pgbouncer: null,
    targetForSource: { info: { host: 'new', user: 'mover' }, reader: 'worker' },
    tables: await listTables(sessions.source, plan, 'dark'),
    targetExists: true,
    rowsBudget: { ms: 1000 },
  };
  // From now on, these sessions may ask nothing.
  for (const server of [source, target])
    await server.psql(
      'dark',
      'REVOKE ALL ON ALL TABLES IN SCHEMA pg_catalog FROM PUBLIC; REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA pg_catalog FROM PUBLIC',
    );
});

afterAll(() => Promise.all([source, target].map((server) => server.remove())));

/** What these go by is known without a query: versions, the plan, the list of tables, the worker's own programs. */
const ASK_NOTHING = [
  'source-version',
  'target-version',
  'target-older',
  'outdated-minor',
  'program-missing',
  'target-database-missing',
  'hash-partition',
];

describe('a check that is refused an answer', () => {
  it.each(
    CHECKS.filter(({ code }) => !ASK_NOTHING.includes(code)).map((check) => [check.code, check.server, check] as const),
  )('says unknown, with its own severity: %s on the %s', async (code, server, check) => {
    const findings = await runChecks([check], context, 'dark');
    expect(findings).toHaveLength(1);
    // Whether the target gets to the source is found out later at the latest, and nothing is lost by it.
    const severity = code === 'source-for-target' ? 'warning' : check.severity;
    expect(findings[0]).toMatchObject({ code, server, severity, unknown: true });
  });

  it('is every check but those that ask nothing', async () => {
    for (const check of CHECKS.filter(({ code }) => ASK_NOTHING.includes(code)))
      expect((await runChecks([check], context, 'dark')).filter(({ unknown }) => unknown === true)).toEqual([]);
  });
});
