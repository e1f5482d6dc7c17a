import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { createSchemaComparisonActivities } from '../../activities/compare-schemas.ts';
import { createDatabaseActivities } from '../../activities/database.ts';
import { createFinishActivities } from '../../activities/finish.ts';
import { createSchemaActivities } from '../../activities/schema.ts';
import type { ActivityDeps } from '../../activities/context.ts';
import { readIdentity } from '../../src/postgres/identity.ts';
import type { Migration } from '../../src/domain/migration.ts';
import { parsePlan } from '../../src/domain/plan.ts';
import type { Session } from '../../src/postgres/connection.ts';
import { connect } from '../../src/postgres/connection.ts';
import { parseConnInfo } from '../../src/postgres/conninfo.ts';
import { runActivity } from './copy-fixture.ts';
import type { PostgresAccess } from '../../lab/postgres-access.ts';
import { cleanEnv } from '../../lab/postgres-access.ts';
import { runProgram } from '../../lab/run-program.ts';
import { createDatabase, dropDatabase, useServer } from './servers.ts';

export interface SchemaFixtureOptions {
  /** A major of which all share a server, or a server. */
  source?: number | PostgresAccess;
  target?: number;
  /** Who the steps log in as on the target. Default: the superuser. */
  targetRole?: string;
  /** SQL for the source. */
  sql?: string;
  method?: Migration['method'];
  /** As somebody would write it. */
  plan?: unknown;
}

/** A database on one server that waits to be brought to another, and the steps that do it. */
export interface SchemaFixture {
  m: Migration;
  deps: ActivityDeps;
  from: PostgresAccess;
  to: PostgresAccess;
  open(server: 'source' | 'target'): Promise<Session>;
  createDatabase(m?: Migration): Promise<{ created: boolean }>;
  copySchema(m?: Migration): Promise<{ entries: number }>;
  restoreConstraints(): Promise<void>;
  refreshMaterializedViews(which?: 'empty' | 'filled'): Promise<{ refreshed: number }>;
  compareSchemas(m?: Migration): Promise<{ differences: string[] }>;
  readReport(): Promise<{ tables: number; rows: number; bytes: number; warnings: string[] }>;
  finish(): Promise<{ warnings: string[] }>;
  close(): Promise<void>;
}

export const fixtureSql = (name: string): Promise<string> =>
  readFile(path.join(import.meta.dirname, 'fixtures', `${name}.sql`), 'utf8');

export async function schemaFixture(options: SchemaFixtureOptions = {}): Promise<SchemaFixture> {
  const { source = 17, target = 18 } = options;
  const [from, to] = [typeof source === 'number' ? await useServer(source) : source, await useServer(target)];
  const { name } = await createDatabase(from.uri());
  if (options.sql !== undefined) await from.psql(name, options.sql);
  const uris = { source: from.uri(), target: to.uri(undefined, { user: options.targetRole ?? 'postgres' }) };
  const endpoint: ActivityDeps['endpoint'] = (_reference, server) => ({
    server,
    info: parseConnInfo(uris[server], 'the test'),
  });
  const deps = { endpoint, searchAttributes: false };
  const sessions: Session[] = [];
  const open = async (server: 'source' | 'target', database = name): Promise<Session> => {
    const session = await connect(endpoint('', server), { applicationName: 'test', database });
    sessions.push(session);
    return session;
  };
  const [left, right] = [
    await readIdentity(await open('source')),
    await readIdentity(await open('target', 'postgres')),
  ];
  const m: Migration = {
    // Of its own: a step ends the sessions of earlier attempts by their name, on the maintenance database too.
    id: randomBytes(6).toString('hex'),
    workflowId: `test/${name}`,
    database: name,
    sourceOid: left.databaseOid,
    method: options.method ?? 'schema-only',
    plan: parsePlan(options.plan),
    servers: { source: left, target: right },
  };
  const made = createDatabaseActivities(deps);
  const schema = createSchemaActivities(deps);
  const ending = createFinishActivities(deps);
  const comparing = createSchemaComparisonActivities(deps);
  return {
    m,
    deps,
    from,
    to,
    open: (server) => open(server),
    createDatabase: (other = m) => runActivity((x) => made.createDatabase(x), [other]),
    copySchema: (other = m) => runActivity((x, g) => schema.copySchema(x, g), [other, 0] as [Migration, number]),
    restoreConstraints: () => runActivity((x) => schema.restoreConstraints(x), [m]),
    refreshMaterializedViews: (which = 'empty') => runActivity((x) => schema.refreshMaterializedViews(x, which), [m]),
    compareSchemas: (other = m) => runActivity((x) => comparing.compareSchemas(x), [other]),
    readReport: () => runActivity((x) => ending.readReport(x), [m]),
    finish: () => runActivity((x) => ending.finish(x), [m]),
    close: async () => {
      await Promise.all(sessions.map((session) => session.close()));
      await Promise.all([dropDatabase(from.uri(), name), dropDatabase(to.uri(), name)]);
    },
  };
}

/** What one and the same pg_dump says of a database: the schema, its settings, owners and grants. */
export async function dumpedSchema(with_: PostgresAccess, server: PostgresAccess, database: string): Promise<string> {
  const args = ['--schema-only', '--create', '-d', server.uri(database)];
  const dump = await runProgram(path.join(with_.binDir, 'pg_dump'), args, { env: cleanEnv(with_.env) });
  // Comments tell versions and times; \restrict carries a random word.
  const text = dump.replaceAll(/^(--.*|\\(un)?restrict .*)\n/gm, '').replaceAll(/\n{2,}/g, '\n');
  // Before 16 a view's columns were written with their tables.
  return text.replaceAll(/\b(parent|z_first)\.(?=\w)|"between"\.(?=\w)/g, '');
}

/** Of the report, a line each. */
export const warningsOf = async (f: SchemaFixture): Promise<string> => (await f.readReport()).warnings.join('\n');
