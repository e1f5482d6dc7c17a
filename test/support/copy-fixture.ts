import { MockActivityEnvironment } from '@temporalio/testing';
import type { PostgresAccess } from '../../lab/postgres-access.ts';
import type { ActivityDeps } from '../../activities/context.ts';
import { readIdentity } from '../../src/postgres/identity.ts';
import { generationName } from '../../src/contract.ts';
import { MigrationError } from '../../src/domain/failure.ts';
import type { Migration } from '../../src/domain/migration.ts';
import { parsePlan } from '../../src/domain/plan.ts';
import type { Session } from '../../src/postgres/connection.ts';
import { connect } from '../../src/postgres/connection.ts';
import { parseConnInfo } from '../../src/postgres/conninfo.ts';
import { createLedger } from '../../src/postgres/ledger.ts';
import { createDatabase, dropDatabase, useServer } from './servers.ts';

export interface FixtureEntry {
  /** Table that it belongs to, as SQL writes it. */
  table: string;
  sql: string;
  stage?: 'index' | 'key';
}

export interface FixtureOptions {
  source?: number;
  /** A major of which all share a server, or a server. */
  target?: number | PostgresAccess;
  /** Of the source; the target is UTF8. */
  sourceEncoding?: string;
  /** Run on both sides: what pre-data would be. */
  schema?: string;
  /** Run on the source only, before the snapshot. */
  rows?: string;
  /** Run on the target only. */
  onTarget?: string;
  entries?: FixtureEntry[];
  method?: Migration['method'];
}

/** A database on two servers whose copy can begin: ledger, entries, and generation 0 with an exported snapshot. */
export interface CopyFixture {
  m: Migration;
  deps: ActivityDeps;
  /** Superuser sessions; the settings are those of a session of ours. */
  source: Session;
  target: Session;
  /** Another session of the test, closed with the fixture. */
  open: (server: 'source' | 'target') => Promise<Session>;
  /** Ends the session that holds the snapshot. */
  loseSnapshot: () => Promise<void>;
  close: () => Promise<void>;
}

export async function copyFixture(options: FixtureOptions): Promise<CopyFixture> {
  const { target: on = 18 } = options;
  const from = await useServer(options.source ?? 17);
  const to = typeof on === 'number' ? await useServer(on) : on;
  const { name } = await createDatabase(from.uri());
  await createDatabase(to.uri(), name);
  if (options.sourceEncoding !== undefined) {
    await dropDatabase(from.uri(), name);
    await from.psql(
      'postgres',
      `CREATE DATABASE ${name} TEMPLATE template0 LOCALE 'C' ENCODING '${options.sourceEncoding}'`,
    );
  }
  const endpoints = {
    source: { server: 'source' as const, info: parseConnInfo(from.uri(name), 'the test') },
    target: { server: 'target' as const, info: parseConnInfo(to.uri(name), 'the test') },
  };
  const sessions: Session[] = [];
  const open = async (server: 'source' | 'target'): Promise<Session> => {
    const session = await connect(endpoints[server], { applicationName: 'test' });
    sessions.push(session);
    return session;
  };
  const [source, target, holder] = [await open('source'), await open('target'), await open('source')];
  const [left, right] = [await readIdentity(source), await readIdentity(target)];
  const m: Migration = {
    id: '0123456789ab',
    workflowId: 'test',
    database: name,
    sourceOid: left.databaseOid,
    method: options.method ?? 'dump',
    plan: parsePlan({}),
    servers: { source: left, target: right },
  };
  for (const session of [source, target]) if (options.schema !== undefined) await session.query(options.schema);
  if (options.onTarget !== undefined) await target.query(options.onTarget);
  if (options.rows !== undefined) await source.query(options.rows);
  await target.transaction(() => createLedger(target, m, true));
  for (const [position, { table, sql, stage = 'index' }] of (options.entries ?? []).entries()) {
    const { oid } = await source.one<{ oid: number }>('SELECT $1::regclass::oid AS oid', [table]);
    await target.query(
      `INSERT INTO pgtransit.entry (position, dump_id, stage, kind, label, class_oid, oid, relation, sql)
       VALUES ($1, $1, $2, 'INDEX', $3, 0, 0, $4, $5)`,
      [position, stage, sql.slice(0, 60), oid, sql],
    );
  }
  await holder.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
  const { snapshot } = await holder.one<{ snapshot: string }>('SELECT pg_export_snapshot() AS snapshot');
  await target.query(
    `INSERT INTO pgtransit.generation (number, name, state, slot, snapshot, holder_pid, source_system_identifier, source_timeline)
     VALUES (0, $1, 'open', false, $2, $3, $4, 1)`,
    [generationName(m.id, 0), snapshot, holder.pid, left.systemIdentifier],
  );
  return {
    m,
    deps: { endpoint: (_reference, server) => endpoints[server], searchAttributes: false },
    source,
    target,
    open,
    loseSnapshot: () => holder.close(),
    close: async () => {
      await Promise.all(sessions.map((session) => session.close()));
      await Promise.all([dropDatabase(from.uri(), name), dropDatabase(to.uri(), name)]);
    },
  };
}

/** Runs an activity as a worker would. `environment`: to see its heartbeats, or to cancel it. */
export const runActivity = <Args extends unknown[], Result>(
  activity: (...args: Args) => Promise<Result>,
  args: Args,
  environment = new MockActivityEnvironment(),
): Promise<Result> => environment.run(() => activity(...args));

/**
 * An attempt that was given up, and still runs, beside the one that takes its place: that one is tried again, as Temporal
 * does, and the other one may be ended by it. @returns what the second one says
 */
export async function besideAnother<T>(work: () => Promise<T>): Promise<T> {
  const unlessEnded = (error: unknown): void => {
    if (!(error instanceof MigrationError) || !error.retryable) throw error;
  };
  const first = work().then(() => undefined, unlessEnded);
  for (;;) {
    try {
      const answer = await work();
      await first;
      return answer;
    } catch (error) {
      unlessEnded(error);
    }
  }
}

export const countRows = async (session: Session, table: string): Promise<number> =>
  (await session.one<{ count: number }>(`SELECT count(*)::float8 AS count FROM ${table}`)).count;

/** Waits until `seen` answers true; fails after ten seconds, saying what it waited for. */
export async function eventually(what: string, seen: () => Promise<boolean>): Promise<void> {
  for (const giveUp = Date.now() + 10_000; !(await seen());) {
    if (Date.now() > giveUp) throw new Error(`never saw: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
