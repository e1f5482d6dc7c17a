import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startPostgres, type PostgresServer } from '../../lab/postgres-server.ts';
import type { ClusterReport } from '../../src/domain/progress.ts';
import type { LiveMigration } from '../support/live-migration.ts';
import { expectEqual, leftovers, startMigration } from '../support/live-migration.ts';
import { readHistory } from '../support/readable-history.ts';

const PATIENCE_MS = 180_000;

const SOURCE_PASSWORD = `Quo'te\\Source@/ %25"ü`;
const TARGET_PASSWORD = `Quo'te\\Target@/ %25"ü`;
/** What of them survives any way of quoting. */
const SECRETS = ['Source@', 'Source%40', 'Target@', 'Target%40', 'Quo'];

let source: PostgresServer;
let target: PostgresServer;

beforeAll(async () => {
  [source, target] = await Promise.all([
    startPostgres({ major: 17, auth: 'scram-sha-256', password: SOURCE_PASSWORD }),
    startPostgres({ major: 18, auth: 'scram-sha-256', password: TARGET_PASSWORD }),
  ]);
});

afterAll(() => Promise.all([source.remove(), target.remove()]));

async function migrate(
  databases: string[],
  method: 'dump' | 'replication',
  look: (migration: LiveMigration, report: ClusterReport) => Promise<void>,
): Promise<void> {
  const plan = { method, stop: { when: 'caught-up' }, onError: 'fail' };
  const migration = await startMigration({ source, target, databases, plan });
  try {
    const watched = watchProcesses(migration.worker.pid);
    const report = await migration.report().finally(() => watched.end());
    expect(report.databases.map(({ status }) => status)).toEqual(databases.map(() => 'done'));
    await look(migration, report);
    const texts = [watched.seen(), migration.worker.output(), JSON.stringify(report)];
    for (const id of [migration.id, ...databases.map((database) => `${migration.id}/${database}`)])
      texts.push((await readHistory(migration.client, id)).text);
    for (const text of texts.slice(1)) expect(text).toContain(migration.id);
    for (const secret of SECRETS) expect(texts.filter((text) => text.includes(secret))).toEqual([]);
    await expectEqual(source, target, databases);
    expect(await leftovers(source, target, databases)).toEqual([]);
  } finally {
    await migration.close();
  }
}

/** The command lines of a process and all below it, as `ps` shows them to every user of the machine. */
function watchProcesses(pid: number): { seen(): string; end(): void } {
  const seen = new Set<string>();
  const look = async (): Promise<void> => {
    const { stdout } = await promisify(execFile)('ps', ['-ww', '-eo', 'pid=,ppid=,args=']);
    const processes = [...stdout.matchAll(/^\s*(\d+)\s+(\d+)\s(.*)$/gm)].map(([, own, parent, args = '']) => ({
      ...{ pid: Number(own), parent: Number(parent), args },
    }));
    const family = new Set([pid]);
    for (const { pid, parent } of processes) if (family.has(parent)) family.add(pid);
    for (const { pid, args } of processes) if (family.has(pid)) seen.add(args);
  };
  const timer = setInterval(() => void look().catch(() => undefined), 200);
  return { seen: () => [...seen].join('\n'), end: () => clearInterval(timer) };
}

/** The most memory that the process ever had resident, in MB. */
function mostMemory(pid: number): number {
  const [, kilobytes] = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
  return Number(kilobytes) / 1024;
}

describe('the limits of a worker', () => {
  test(
    '2,000 tables take fewer than 250 events of the history, 50 connections to the source, and 350 MB',
    async () => {
      const database = 'many_tables';
      await source.psql('postgres', `CREATE DATABASE ${database}`);
      await source.psql(
        database,
        `SELECT format('CREATE TABLE t%s (id int PRIMARY KEY, other int REFERENCES t%s, note text); CREATE INDEX ON t%s (note); INSERT INTO t%s VALUES (1, 1, md5(''%s''))', g, g, g, g, g) FROM generate_series(1, 2000) g \\gexec`,
      );
      await migrate([database], 'dump', async ({ client, id, worker }, report) => {
        expect(report.databases[0]).toMatchObject({ tables: 2000, rows: 2000 });
        const sessions = `SELECT sessions FROM pg_stat_database WHERE datname = '${database}'`;
        expect(Number(await source.psql('postgres', sessions))).toBeLessThan(50);
        expect((await readHistory(client, `${id}/${database}`)).events).toBeLessThan(250);
        expect(mostMemory(worker.pid)).toBeLessThan(350);
      });
    },
    PATIENCE_MS,
  );

  test(
    'rows of 20 MB take less than 350 MB',
    async () => {
      const database = 'big_rows';
      await source.psql('postgres', `CREATE DATABASE ${database}`);
      await source.psql(
        database,
        // Not compressed: that would only cost time.
        `CREATE TABLE big (id int PRIMARY KEY, words text, bytes bytea);
         ALTER TABLE big ALTER words SET STORAGE EXTERNAL, ALTER bytes SET STORAGE EXTERNAL;
         INSERT INTO big SELECT g, CASE WHEN g < 6 THEN repeat(md5(g::text), 625000) END,
                                CASE WHEN g > 5 THEN decode(repeat(md5(g::text), 1250000), 'hex') END FROM generate_series(1, 10) g`,
      );
      await migrate([database], 'dump', ({ worker }) => {
        expect(mostMemory(worker.pid)).toBeLessThan(350);
        return Promise.resolve();
      });
    },
    PATIENCE_MS,
  );
});

describe('names', () => {
  test(
    'SQL in names of databases, tables and columns is inert, by either method',
    async () => {
      const long = 'ü'.repeat(31) + 'x'; // 63 bytes, the most that PostgreSQL takes
      const databases = ['x"; DROP DATABASE postgres; --', `'; SELECT 1/0; --$$ \\ %s $1`, long, 'My-Db.1 ä'];
      for (const database of databases) {
        await source.psql('postgres', `CREATE DATABASE "${database.replaceAll('"', '""')}"`);
        await source.psql(
          database,
          `CREATE SCHEMA "a.b""; DROP SCHEMA public CASCADE; --";
         CREATE TABLE "a.b""; DROP SCHEMA public CASCADE; --"."t'); DROP TABLE kept; --" ("c"", 1; --" int PRIMARY KEY, "$1 \\N" text);
         INSERT INTO "a.b""; DROP SCHEMA public CASCADE; --"."t'); DROP TABLE kept; --" VALUES (1, 'x'), (2, E'\\\\N');
         CREATE INDEX "i"" ON kept; --" ON "a.b""; DROP SCHEMA public CASCADE; --"."t'); DROP TABLE kept; --" ("$1 \\N");
         CREATE SEQUENCE "s'"" ; --"; SELECT nextval('"s''"" ; --"');
         CREATE TABLE kept (id serial PRIMARY KEY, "${'ä'.repeat(31)}1" text DEFAULT '%s $1'); INSERT INTO kept DEFAULT VALUES;
         CREATE TABLE "${'ß'.repeat(31)}2" (id int PRIMARY KEY REFERENCES kept); INSERT INTO "${'ß'.repeat(31)}2" VALUES (1);
         CREATE MATERIALIZED VIEW "v'"" AS SELECT; --" AS SELECT count(*) FROM kept`,
        );
      }
      await migrate(databases.slice(0, 2), 'replication', () => Promise.resolve());
      await migrate(databases.slice(2), 'dump', () => Promise.resolve());
      for (const server of [source, target])
        expect(await server.psql('postgres', `SELECT count(*) FROM pg_database WHERE datname = 'postgres'`)).toBe('1');
    },
    PATIENCE_MS,
  );
});
