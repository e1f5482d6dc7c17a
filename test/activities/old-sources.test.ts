import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { PostgresServer } from '../../lab/postgres-server.ts';
import { startPostgres } from '../../lab/postgres-server.ts';
import { hasOldServers } from '../../lab/tools.ts';
import { runActivity } from '../support/copy-fixture.ts';
import { replicationFixture } from '../support/replication-fixture.ts';
import { schemaFixture } from '../support/schema-fixture.ts';
import { createDatabase, useServer } from '../support/servers.ts';
import { versionSchema } from '../support/version-schema.ts';
import { DUMP, SOUND } from './preflight-liars.ts';
import { inspectCluster, inspectDatabase, withCode, type Servers } from './preflight-support.ts';

let source: PostgresServer;
let servers: Servers;

async function newDatabase(sql: string): Promise<string> {
  const { name } = await createDatabase(source.uri());
  await source.psql(name, sql);
  return name;
}

/** What makes it, what is found then, and in what words. */
const REMOVED: readonly (readonly [string, string, RegExp])[] = [
  ['CREATE TABLE dated (id int PRIMARY KEY, at abstime)', 'public.dated', /^Column at is of type abstime, .* 12 /],
  ['CREATE VIEW dates AS SELECT at FROM dated', 'public.dates', /^Column at is of type abstime/],
  ['CREATE TYPE spans AS (at tinterval[])', 'public.spans', /^Column at is of type tinterval\[\]/],
  ['CREATE DOMAIN moment AS reltime', 'public.moment', /^The domain is of type reltime/],
  [`CREATE FUNCTION later(abstime) RETURNS int LANGUAGE sql AS 'SELECT 1'`, 'public.later', /^The function takes/],
  [
    'CREATE UNIQUE INDEX numbered ON hidden (oid)',
    'public.hidden',
    /^The index public\.numbered uses the hidden column oid/,
  ],
  [
    'CREATE VIEW numbers AS SELECT oid AS n FROM hidden',
    'public.hidden',
    /^The rule .* on view public\.numbers uses the hidden/,
  ],
  ['CREATE OPERATOR !!! (LEFTARG = bigint, PROCEDURE = numeric_fac)', 'public."!!!"', /^The operator follows .* 14 /],
  [
    `CREATE AGGREGATE all_of(anyelement) (SFUNC = array_append, STYPE = anyarray, INITCOND = '{}')`,
    'public.all_of',
    /^The aggregate is made of a function of anyarray/,
  ],
  [
    'CREATE OPERATOR ||| (LEFTARG = anyarray, RIGHTARG = anyelement, PROCEDURE = array_append)',
    'public."|||"',
    /^The operator is made of a function of anyarray/,
  ],
  [
    `CREATE CONVERSION mine FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8`,
    'public.mine',
    /^The encoding conversion has a function without an answer/,
  ],
];

describe.runIf(hasOldServers)('a source of PostgreSQL 10', () => {
  beforeAll(async () => {
    source = await startPostgres({ major: 10 });
    await source.psql('postgres', 'CREATE ROLE plain LOGIN');
    servers = { source: source.uri(), target: (await useServer(18)).uri() };
  });

  afterAll(() => source.remove());

  it('with all that it can have is known in every respect before the start', async () => {
    const { name } = await createDatabase(source.uri());
    const { roles, schema } = versionSchema(10);
    await source.psql(name, `${roles} ${schema}`);
    const runs = [
      { user: 'postgres', plan: { stop: { fence: 'read-only' } } },
      { user: 'plain', plan: { stop: { fence: 'read-only' } } },
      { user: 'postgres', plan: DUMP },
      { user: 'postgres', plan: { method: 'schema-only' } },
      { user: 'plain', plan: { tables: { include: ['public."Order.s"', 'account'], exclude: ['kinds'] } } },
    ];
    for (const { user, plan } of runs) {
      const asUser = { ...servers, source: source.uri('postgres', { user }) };
      const { findings } = await inspectCluster(asUser, plan);
      findings.push(...(await inspectDatabase(asUser, name, plan)).findings);
      // What others do, an ordinary role may not see, whatever the version.
      const unknown = findings.filter((finding) => finding.unknown === true && finding.code !== 'long-transaction');
      expect(unknown).toEqual([]);
    }
  });

  describe('what later versions do not have', () => {
    it('is an error before the start, and nothing that is much like it', async () => {
      const database = await newDatabase(
        `${SOUND} CREATE OPERATOR !!! (RIGHTARG = bigint, PROCEDURE = numeric_fac);
       CREATE TABLE hidden (v text) WITH OIDS; CREATE VIEW system_column AS SELECT xmin, v FROM hidden;
       CREATE SCHEMA own; CREATE DOMAIN own.abstime AS timestamptz; CREATE TABLE mine (at own.abstime);`,
      );
      const sound = await inspectDatabase(servers, database, DUMP);
      expect(withCode(sound.findings, 'removed-feature')).toEqual([]);
      await source.psql(database, REMOVED.map(([sql]) => sql).join(';\n'));
      const found = withCode((await inspectDatabase(servers, database, DUMP)).findings, 'removed-feature');
      for (const [, object, message] of REMOVED)
        expect(found).toContainEqual(
          expect.objectContaining({ severity: 'error', object, message: expect.stringMatching(message) as string }),
        );
      expect(found).toHaveLength(REMOVED.length);
    });

    it('is not looked for where later versions have something else in its place', async () => {
      const newer = await useServer(17);
      const { name } = await createDatabase(newer.uri());
      // Since 12, xmin has the number that the hidden column oid had.
      await newer.psql(name, 'CREATE TABLE t (id int); CREATE VIEW versions AS SELECT xmin FROM t');
      const { findings } = await inspectDatabase({ ...servers, source: newer.uri() }, name, DUMP);
      expect(withCode(findings, 'removed-feature')).toEqual([]);
    });

    it('is a warning where only hidden numbers are lost', async () => {
      const database = await newDatabase(`${SOUND} CREATE TABLE hidden (id int PRIMARY KEY) WITH OIDS`);
      const { findings } = await inspectDatabase(servers, database);
      expect(withCode(findings, 'table-with-oids')).toMatchObject([{ severity: 'warning', object: 'public.hidden' }]);
    });
  });

  it('a setting of the database that the target does not take any more is left out, and said', async () => {
    const f = await schemaFixture({
      source,
      sql: `DO $$ BEGIN
      EXECUTE format('ALTER DATABASE %I SET default_with_oids = on', current_database());
      EXECUTE format('ALTER DATABASE %I SET password_encryption = on', current_database());
      EXECUTE format('ALTER DATABASE %I SET operator_precedence_warning = on', current_database());
      EXECUTE format('ALTER DATABASE %I SET work_mem = ''9MB''', current_database()); END $$`,
    });
    try {
      await f.createDatabase();
      await f.copySchema();
      await f.restoreConstraints();
      const { warnings } = await f.finish();
      for (const name of ['default_with_oids', 'password_encryption', 'operator_precedence_warning'])
        expect(warnings.join('\n')).toContain(name);
      expect(warnings).toHaveLength(3);
      expect(await f.to.psql(f.m.database, 'SHOW work_mem')).toBe('9MB');
    } finally {
      await f.close();
    }
  });

  it('what the system itself has lost since is named before a row is copied', async () => {
    const f = await schemaFixture({ source, sql: 'CREATE VIEW five AS SELECT 5 ! AS factorial' });
    try {
      await f.createDatabase();
      await expect(f.copySchema()).rejects.toMatchObject({
        type: 'SchemaFailed',
        details: { object: 'VIEW public.five' },
      });
    } finally {
      await f.close();
    }
  });

  describe('TRUNCATE, of which PostgreSQL 10 tells nobody,', () => {
    it('is warned of before the start', async () => {
      const database = await newDatabase(SOUND);
      const code = 'truncate-not-replicated';
      expect(withCode((await inspectDatabase(servers, database)).findings, code)).toMatchObject([
        { severity: 'warning' },
      ]);
      expect(withCode((await inspectDatabase(servers, database, DUMP)).findings, code)).toEqual([]);
    });

    it('loses the snapshot for a table that is not copied yet: no stream would empty it', async () => {
      const f = await replicationFixture({
        source,
        schema: 'CREATE TABLE public.hit (id int PRIMARY KEY)',
        rows: 'INSERT INTO public.hit VALUES (1)',
      });
      try {
        await runActivity(f.steps.openSnapshot, [f.m, 0]);
        await runActivity(f.steps.planCopy, [f.m, 0]);
        await f.source.query('TRUNCATE public.hit');
        const copying = runActivity(f.steps.copyTables, [f.m, 0, 0]);
        await expect(copying).rejects.toMatchObject({ type: 'SnapshotLost', details: { object: 'public.hit' } });
      } finally {
        await f.close();
      }
    });

    it('is in the report of the tables that it has hit since', async () => {
      const tables = ['hit', 'spared'].map((name) => `CREATE TABLE public.${name} (id int PRIMARY KEY)`).join('; ');
      const f = await replicationFixture({ source, schema: tables, rows: 'INSERT INTO public.hit VALUES (1)' });
      try {
        await f.stream();
        await f.source.query(
          'TRUNCATE public.hit; INSERT INTO public.hit VALUES (2); INSERT INTO public.spared VALUES (3)',
        );
        const { markLsn } = await runActivity(f.steps.mark, [f.m]);
        await runActivity(f.steps.waitForDrain, [f.m, markLsn]);
        const warnings = await f.target.query<{ message: string }>('SELECT message FROM pgtransit.event WHERE warning');
        expect(warnings.map(({ message }) => message)).toEqual([
          expect.stringMatching(/^Table public\.hit was truncated/),
        ]);
      } finally {
        await f.close();
      }
    });
  });
});
