import { randomBytes } from 'node:crypto';
import { beforeAll, describe, expect, it } from 'vitest';
import type { PostgresAccess } from '../../lab/postgres-access.ts';
import { createDatabase } from '../support/servers.ts';
import { itCatches, REPLICATION, SOUND, usePair } from './preflight-liars.ts';
import type { Servers } from './preflight-support.ts';
import { errorsOf, inspectDatabase, withCode } from './preflight-support.ts';

let source: PostgresAccess;
let target: PostgresAccess;
let servers: Servers;
let newDatabase: (sql?: string) => Promise<string>;

beforeAll(async () => {
  ({ source, target, servers, newDatabase } = await usePair());
});

/** Names of one test file on servers that others use too. */
const unique = randomBytes(4).toString('hex');

const CONFIGURATION = `CREATE EXTENSION hstore; CREATE TABLE "my conf" (id int PRIMARY KEY, mine bool NOT NULL);
  INSERT INTO "my conf" VALUES (1, false); ALTER EXTENSION hstore ADD TABLE "my conf";
  UPDATE pg_extension SET extconfig = ARRAY['public."my conf"'::regclass::oid], extcondition = ARRAY['WHERE mine'] WHERE extname = 'hstore';`;

describe('the database on the target', () => {
  itCatches([
    {
      code: 'leftovers',
      broken: `CREATE PUBLICATION pgtransit_aaaaaaaaaaaa_g0 FOR TABLE sound`,
      objects: ['"pgtransit_aaaaaaaaaaaa_g0"'],
      remedy: /DROP PUBLICATION "pgtransit_aaaaaaaaaaaa_g0";/,
    },
    {
      code: 'leftovers',
      onTarget: `CREATE SCHEMA pgtransit; CREATE TABLE pgtransit.migration (id text, workflow_id text); INSERT INTO pgtransit.migration VALUES ('bbbbbbbbbbbb', 'blue green')`,
      objects: ['pgtransit'],
      says: /workflow "blue green"/,
      remedy: /temporal workflow cancel -w 'blue green' .* DROP SCHEMA pgtransit CASCADE;/,
    },
    { code: 'leftovers', onTarget: 'CREATE SCHEMA pgtransit', objects: ['pgtransit'], says: /does not say whose/ },
    {
      code: 'target-not-empty',
      onTarget: 'CREATE TABLE mine (a int); CREATE VIEW seen AS SELECT 1',
      objects: ['"%database%"'],
      says: /public\.mine, public\.seen/,
      remedy: /DROP DATABASE/,
    },
    {
      code: 'target-database-missing',
      plan: { createDatabases: false },
      objects: ['"%database%"'],
    },
    {
      code: 'target-event-trigger',
      onTarget: `CREATE FUNCTION watch() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE EVENT TRIGGER watcher ON ddl_command_end EXECUTE FUNCTION watch();
        CREATE EVENT TRIGGER off ON ddl_command_end EXECUTE FUNCTION watch(); ALTER EVENT TRIGGER off DISABLE`,
      objects: ['"watcher"'],
      severity: 'warning',
      says: /calls public\.watch at ddl_command_end/,
      remedy: /^ALTER EVENT TRIGGER "watcher" DISABLE; -- /,
    },
    {
      code: 'target-subscription',
      onTarget: `CREATE SUBSCRIPTION other_%database% CONNECTION 'host=127.0.0.1 port=1' PUBLICATION p WITH (connect = false)`,
      plan: REPLICATION,
      objects: ['"other_%database%"'],
      severity: 'warning',
    },
    {
      code: 'extension-rows',
      // As pg_extension_config_dump does it in an extension's script: of the rows, only those that a person added.
      sound: CONFIGURATION,
      onTarget: `${CONFIGURATION} INSERT INTO "my conf" VALUES (3, true)`,
      objects: ['public."my conf"'],
      says: /holds rows already/,
      remedy: /^DELETE FROM "public"\."my conf" WHERE mine; -- /,
    },
    {
      code: 'collation-version',
      sound: `CREATE TABLE by_name (name text PRIMARY KEY) PARTITION BY RANGE (name)`,
      broken: `UPDATE pg_database SET datcollversion = '2.27' WHERE datname = '%database%'`,
      onTarget: `UPDATE pg_database SET datcollversion = '2.36' WHERE datname = '%database%'`,
      objects: ['"C.UTF-8"'],
      severity: 'warning',
      says: /version 2\.27 on the source and by 2\.36 on the target.*may not fit their partition/,
    },
  ]);

  it('names an extension that the target lacks, has in an older version, or cannot bring into order', async () => {
    const database = await newDatabase('CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE EXTENSION pg_trgm');
    expect(withCode((await inspectDatabase(servers, database)).findings, 'extension')).toEqual([]);
    // As if the source had others: what is compared are names and versions.
    await source.psql(
      database,
      `UPDATE pg_extension SET extname = 'not_there_at_all' WHERE extname = 'hstore';
       UPDATE pg_extension SET extversion = '99' WHERE extname = 'citext'`,
    );
    await createDatabase(target.uri(), database);
    await target.psql(database, `CREATE EXTENSION pg_trgm VERSION '1.5'`);
    const found = withCode((await inspectDatabase(servers, database)).findings, 'extension');
    expect(found.map(({ object, severity }) => [object, severity])).toEqual([
      ['"citext"', 'warning'],
      ['"not_there_at_all"', 'error'],
      ['"pg_trgm"', 'error'],
    ]);
    expect(found[2]?.message).toMatch(/has version 1\.6 on the source, but the target gives the older 1\.5/);
    const excluded = { extensions: { exclude: ['not_there_at_all', 'pg_trgm'] } };
    expect(errorsOf(withCode((await inspectDatabase(servers, database, excluded)).findings, 'extension'))).toEqual([]);
  });

  it('refuses an extension whose tables are something else, and a language that the target lacks', async () => {
    const database = await newDatabase('CREATE EXTENSION hstore; CREATE LANGUAGE strange HANDLER plpgsql_call_handler');
    await source.psql(database, `UPDATE pg_extension SET extname = 'timescaledb' WHERE extname = 'hstore'`);
    const { findings } = await inspectDatabase(servers, database);
    expect(withCode(findings, 'unsupported-extension')).toMatchObject([{ severity: 'error', object: '"timescaledb"' }]);
    expect(withCode(findings, 'language')).toMatchObject([{ severity: 'error', object: '"strange"' }]);
  });

  it('asks the target itself whether it has a locale', async () => {
    const database = await newDatabase(`CREATE COLLATION "Fine One" (provider = libc, locale = 'C');
      CREATE COLLATION far (provider = libc, locale = 'C'); CREATE COLLATION built (provider = builtin, locale = 'C.UTF-8')`);
    expect(withCode((await inspectDatabase(servers, database)).findings, 'locale')).toEqual([]);
    await source.psql(
      database,
      `UPDATE pg_collation SET collcollate = 'xx_YY', collctype = 'xx_YY' WHERE collname = 'far'`,
    );
    const found = withCode((await inspectDatabase(servers, database)).findings, 'locale');
    expect(found).toMatchObject([{ severity: 'error', server: 'target', object: 'public.far' }]);
    expect(found[0]?.message).toMatch(/libc locale xx_YY/);
  });

  it('refuses an encoding in which not every text can be written', async () => {
    const database = await newDatabase();
    await target.psql('postgres', `CREATE DATABASE ${database} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'`);
    const found = withCode((await inspectDatabase(servers, database)).findings, 'target-differs');
    expect(errorsOf(found)).toMatchObject([{ server: 'target' }]);
    expect(found[0]?.message).toMatch(/LATIN1 on the target and UTF8 on the source/);
  });

  it('names slot and holder of a dead migration, with the SQL that ends them', async () => {
    const database = await newDatabase(SOUND);
    const slot = `pgtransit_${unique}cccc_g0`;
    await source.psql(database, `SELECT pg_create_logical_replication_slot('${slot}', 'pgoutput')`);
    try {
      const found = withCode((await inspectDatabase(servers, database)).findings, 'leftovers');
      expect(found).toMatchObject([{ severity: 'error', server: 'source', object: `"${slot}"` }]);
      expect(found[0]?.remedy).toContain(`SELECT pg_drop_replication_slot('${slot}');`);
    } finally {
      await source.psql(database, `SELECT pg_drop_replication_slot('${slot}')`);
    }
  });
});
