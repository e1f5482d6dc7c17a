import path from 'node:path';
import { expect } from 'vitest';
import type { PostgresAccess } from '../../lab/postgres-access.ts';
import { cleanEnv } from '../../lab/postgres-access.ts';
import { runProgram } from '../../lab/run-program.ts';
import type { Finding } from '../../src/domain/finding.ts';
import type { ClusterReport } from '../../src/domain/progress.ts';
import { expectEqual, leftovers, startMigration } from './live-migration.ts';
import { dropDatabase } from './servers.ts';
import { startTraffic } from './traffic.ts';
import { versionSchema } from './version-schema.ts';
import { eventually } from './workflow-harness.ts';

/** Enough to meet every step of a migration, and little enough to leave the machine to the servers. */
const TRANSACTIONS_PER_SECOND = 60;

/**
 * Migrates two databases with everything that a source of this major can have: one by replication, with a writer that
 * ends when the source is fenced, and one by dump, because a table of it has no key. Fails with each difference.
 */
export async function migratePair(source: PostgresAccess, target: PostgresAccess): Promise<ClusterReport> {
  const [live, quiet] = [`Live ${source.major}-${target.major}`, `quiet_${source.major}_${target.major}`];
  const databases = [live, quiet];
  const { writes } = await makeDatabases(source, databases);
  await source.psql(quiet, 'CREATE TABLE keyed_by_nothing AS SELECT g AS a FROM generate_series(1, 10) g');
  const traffic = startTraffic(source.uri(live), TRANSACTIONS_PER_SECOND, writes);
  const migration = await startMigration({
    source,
    target,
    databases,
    plan: { stop: { fence: 'read-only' }, onError: 'fail' },
  });
  try {
    const phases = async () => {
      if ((await migration.handle.describe()).status.name !== 'RUNNING') await migration.report();
      return Object.fromEntries((await migration.progress()).databases.map(({ database, phase }) => [database, phase]));
    };
    await eventually(phases, (phase) => phase[live] === 'streaming' && phase[quiet] === 'done', 120_000);
    const before = traffic.committed();
    await eventually(
      () => Promise.resolve(traffic.committed()),
      (committed) => committed > before + writes.length,
    );
    await migration.signalStop();
    const report = await migration.report();
    await traffic.stop();
    expect(report.databases).toMatchObject([
      { database: live, status: 'done', method: 'replication', walAfterMarkBytes: 0 },
      { database: quiet, status: 'done', method: 'dump' },
    ]);
    await expectEqual(source, target, databases);
    for (const database of databases)
      expect(await describeSchema(target, target, database)).toEqual(await describeSchema(target, source, database));
    expect(await readRoles(target, source.major)).toEqual(await readRoles(source, source.major));
    expect(await leftovers(source, target, databases)).toEqual([]);
    const { findings } = (await migration.client.workflow.execute('validateCluster', {
      taskQueue: migration.id,
      workflowId: `${migration.id}-again`,
      args: [{ databases: { include: databases } }],
    })) as { findings: Finding[] };
    expect(findings.filter(({ unknown }) => unknown)).toEqual([]);
    for (const server of [source, target]) for (const database of databases) await dropDatabase(server.uri(), database);
    return report;
  } finally {
    await traffic.stop();
    await migration.close();
  }
}

async function makeDatabases(source: PostgresAccess, databases: string[]): Promise<{ writes: string[] }> {
  const { roles, schema, writes } = versionSchema(source.major);
  if ((await readRoles(source, source.major)).length === 0) await source.psql('postgres', roles);
  for (const database of databases) {
    await source.psql('postgres', `CREATE DATABASE "${database}"`);
    await source.psql(database, schema);
  }
  return { writes };
}

/**
 * Every object with its owner, key, grants, comment and state, as one pg_dump reads them on either side. Not the
 * definitions: servers of two majors write views and triggers differently.
 */
async function describeSchema(programs: PostgresAccess, server: PostgresAccess, database: string): Promise<string[]> {
  const args = ['--schema-only', '--no-subscriptions', '-d', server.uri(database)];
  const text = await runProgram(path.join(programs.binDir, 'pg_dump'), args, { env: cleanEnv(programs.env) });
  const lines = text
    .split('\n')
    .filter((line) => /^(-- Name:|ALTER|GRANT|REVOKE|COMMENT|CREATE .*INDEX| +ADD) /.test(line));
  return lines.map((line) => line.replace('(IN ', '('));
}

/** Roles that `versionSchema` makes, with what is stored of their passwords, and who is a member of them. */
async function readRoles(server: PostgresAccess, major: number): Promise<string[]> {
  const rows = await server.psql(
    'postgres',
    `SELECT to_jsonb(r) - 'oid', shobj_description(r.oid, 'pg_authid'),
            (SELECT array_agg(setconfig) FROM pg_db_role_setting s WHERE s.setrole = r.oid),
            (SELECT array_agg(m.member::regrole::text) FROM pg_auth_members m WHERE m.roleid = r.oid)
       FROM pg_authid r WHERE rolname IN ('Owner ${major}', 'login_${major}', 'md5-${major}') ORDER BY rolname`,
  );
  return rows === '' ? [] : rows.split('\n');
}
