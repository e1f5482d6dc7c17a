import { readFileSync } from 'node:fs';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { PostgresAccess } from '../../lab/postgres-access.ts';
import type { PostgresServer } from '../../lab/postgres-server.ts';
import { startPostgres } from '../../lab/postgres-server.ts';
import type { Migration } from '../../src/domain/migration.ts';
import { parsePlan } from '../../src/domain/plan.ts';
import { dropExtras, provideExtras } from '../../src/postgres/aiven-extras.ts';
import type { Session } from '../../src/postgres/connection.ts';
import { connect } from '../../src/postgres/connection.ts';
import { parseConnInfo } from '../../src/postgres/conninfo.ts';
import { createLedger } from '../../src/postgres/ledger.ts';
import {
  createSubscription,
  disableSubscriptions,
  dropSubscription,
  enableSubscriptions,
} from '../../src/postgres/subscription.ts';
import { withAivenExtras } from '../support/aiven-extras.ts';
import { createDatabase, dropDatabase, useServer } from '../support/servers.ts';
import { eventually } from '../support/workflow-harness.ts';
import { DUMP, REPLICATION } from './preflight-liars.ts';
import type { PlanInput } from './preflight-support.ts';
import { inspectCluster, inspectDatabase, withCode } from './preflight-support.ts';

const copy = withAivenExtras(15, true);
let source: PostgresAccess;
let target: PostgresServer;

beforeAll(async () => {
  [source, target] = await Promise.all([
    useServer(15),
    startPostgres({ major: 15, binDir: copy.binDir, settings: { log_min_messages: 'info' } }),
  ]);
  await target.psql('postgres', 'CREATE ROLE plain LOGIN CREATEDB; CREATE ROLE nobody LOGIN CREATEDB');
});

afterAll(async () => {
  await target.remove();
  copy.remove();
});

const closing: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

/** A database of the same name on both servers; on the target it belongs to the role, whose session this is. */
async function database(): Promise<{ name: string; session: Session }> {
  const { name } = await createDatabase(source.uri());
  closing.push(() => dropDatabase(source.uri(), name));
  await target.psql('postgres', `CREATE DATABASE ${name} OWNER plain`);
  closing.push(() => dropDatabase(target.uri(), name));
  const info = parseConnInfo(target.uri(name, { user: 'plain' }), 'the test');
  const session = await connect({ server: 'target', info }, { applicationName: 'test' });
  closing.push(() => session.close());
  return { name, session };
}

const migration = (name: string): Migration => ({
  ...{ id: '0123456789ab', workflowId: 'test', database: name, sourceOid: 1, method: 'replication' as const },
  plan: parsePlan({}),
  servers: { source: { systemIdentifier: '1', version: 150000 }, target: { systemIdentifier: '2', version: 150000 } },
});

const installed = (name: string): Promise<string> =>
  target.psql(
    name,
    `SELECT extname FROM pg_extension WHERE extname ~ 'aiven' UNION ALL SELECT nspname FROM pg_namespace WHERE nspname ~ 'aiven'`,
  );

describe('where only aiven_extras can subscribe', () => {
  it('a subscription is made, disabled, enabled and dropped, and the extension leaves as it came', async () => {
    const { name, session } = await database();
    const subscription = `pgtransit_${name}`;
    await source.psql(name, `CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION ${subscription} FOR TABLE t`);
    await source.psql(name, `SELECT pg_create_logical_replication_slot('${subscription}', 'pgoutput')`);
    await target.psql(name, 'CREATE TABLE t (id int PRIMARY KEY)');
    await session.transaction(() => createLedger(session, migration(name), true));
    const rows = (count: string) =>
      eventually(
        () => target.psql(name, 'SELECT count(*) FROM t'),
        (seen) => seen === count,
        20_000,
      );

    await provideExtras(session);
    await provideExtras(session);
    await createSubscription(session, subscription, [subscription], source.uri(name));
    await source.psql(name, 'INSERT INTO t VALUES (1)');
    await rows('1');
    await disableSubscriptions(session, [subscription]);
    await source.psql(name, 'INSERT INTO t VALUES (2)');
    await enableSubscriptions(session, [subscription]);
    await rows('2');

    // A worker that waits for somebody's lock does not end by itself, and our role may not end a superuser's.
    const blocker = new pg.Client({ connectionString: target.uri(name) });
    await blocker.connect();
    closing.push(() => blocker.end());
    await blocker.query('BEGIN; LOCK TABLE t');
    const { rows: pids } = await blocker.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
    await source.psql(name, 'INSERT INTO t VALUES (3)');
    await eventually(
      () => target.psql(name, 'SELECT count(*) FROM pg_locks WHERE NOT granted'),
      (waiting) => waiting === '1',
    );
    await expect(disableSubscriptions(session, [subscription])).rejects.toMatchObject({
      type: 'PrivilegeMissing',
      message: expect.stringContaining(`It waits for these backends: ${pids[0]?.pid}.`) as string,
    });
    await blocker.query('ROLLBACK');
    await disableSubscriptions(session, [subscription]);

    await dropSubscription(session, subscription);
    await source.psql(name, `SELECT pg_drop_replication_slot('${subscription}')`);
    expect(await target.psql(name, 'SELECT count(*) FROM pg_subscription')).toBe('0');
    await dropExtras(session);
    await dropExtras(session);
    expect(await installed(name)).toBe('');
  });

  it('the extension stays where it was there before, and where somebody uses it by now, who is told', async () => {
    const { name, session } = await database();
    await session.transaction(() => createLedger(session, migration(name), true));
    await target.psql(name, 'CREATE EXTENSION aiven_extras');
    await provideExtras(session);
    await dropExtras(session);
    expect(await installed(name)).toBe('aiven_extras\naiven_extras');

    await target.psql(name, 'DROP EXTENSION aiven_extras; DROP SCHEMA aiven_extras');
    await provideExtras(session);
    await target.psql(
      name,
      `CREATE FUNCTION uses() RETURNS void BEGIN ATOMIC SELECT aiven_extras.pg_alter_subscription_enable('x'); END`,
    );
    await dropExtras(session);
    expect(await installed(name)).toBe('aiven_extras\naiven_extras');
    expect(await target.psql(name, 'SELECT message FROM pgtransit.event WHERE warning')).toMatch(/stays on the target/);
  });

  it('a subscription that cannot be made leaves no password in the log of the target', async () => {
    const { session } = await database();
    await session.query('CREATE EXTENSION aiven_extras');
    const conninfo = "host=127.0.0.1 port=1 user=app password='hush it' dbname=shop";
    await expect(
      createSubscription(session, 'pgtransit_0123456789ab_g0', ['pgtransit_0123456789ab_g0'], conninfo),
    ).rejects.toThrow(/connect/);
    expect(readFileSync(target.logFile, 'utf8')).not.toContain('hush');
  });

  it('a subscription of several publications is refused, which it would make of one', async () => {
    const { session } = await database();
    await session.query('CREATE EXTENSION aiven_extras');
    const name = 'pgtransit_0123456789ab_g0';
    const conninfo = 'host=127.0.0.1 port=1 dbname=shop';
    await expect(
      createSubscription(session, name, [name, 'pgtransit_0123456789ab_k0'], conninfo),
    ).rejects.toMatchObject({ type: 'PrivilegeMissing' });
  });

  it('its right or the extension is asked for before the start, only where it is missing', async () => {
    const { name } = await database();
    await source.psql(name, 'CREATE TABLE t (id int PRIMARY KEY)');
    const look = async (user: string, plan: PlanInput) => {
      const servers = { source: source.uri(), target: target.uri(undefined, { user }) };
      const cluster = withCode((await inspectCluster(servers, plan)).findings, 'create-subscription');
      return [...cluster, ...withCode((await inspectDatabase(servers, name, plan)).findings, 'aiven-extras')];
    };
    // It may be made: the extension is trusted, as on servers that list it for ordinary roles.
    expect(await look('plain', REPLICATION)).toEqual([]);
    await target.psql(name, 'CREATE EXTENSION aiven_extras');
    const [closed] = await look('nobody', REPLICATION);
    expect(closed).toMatchObject({ severity: 'error', remedy: 'GRANT USAGE ON SCHEMA aiven_extras TO "nobody";' });
    expect(await look('nobody', DUMP)).toEqual([]);
    await target.psql(name, closed?.remedy ?? '');
    expect(await look('nobody', REPLICATION)).toEqual([]);
  });
});
