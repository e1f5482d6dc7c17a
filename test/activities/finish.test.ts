import { afterEach, describe, expect, test } from 'vitest';
import { generationName } from '../../src/contract.ts';
import type { SchemaFixture, SchemaFixtureOptions } from '../support/schema-fixture.ts';
import { schemaFixture } from '../support/schema-fixture.ts';
import { createDatabase, useServer } from '../support/servers.ts';

let fixture: SchemaFixture | undefined;
afterEach(async () => {
  await fixture?.close();
  fixture = undefined;
});

/** A target that has everything but what comes last. */
async function almostDone(options: SchemaFixtureOptions): Promise<SchemaFixture> {
  fixture = await schemaFixture(options);
  await fixture.createDatabase();
  await fixture.copySchema();
  await fixture.restoreConstraints();
  return fixture;
}

const ledgerIsGone = (f: SchemaFixture): Promise<string> =>
  f.to.psql(f.m.database, `SELECT to_regnamespace('pgtransit') IS NULL`);

describe('finish', () => {
  test('drops the ledger before the event triggers that would see it, in one go', async () => {
    const f = await almostDone({
      sql: `CREATE TABLE seen (tag text);
        CREATE FUNCTION see() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.seen VALUES (TG_TAG); END $$;
        CREATE EVENT TRIGGER see_drop ON sql_drop EXECUTE FUNCTION see(); CREATE EVENT TRIGGER see_all ON ddl_command_end EXECUTE FUNCTION see();`,
    });
    expect(await f.to.psql(f.m.database, 'SELECT count(*) FROM pg_event_trigger')).toBe('0');
    await f.finish();
    expect(await f.to.psql(f.m.database, 'SELECT string_agg(evtname, $$ $$ ORDER BY 1) FROM pg_event_trigger')).toBe(
      'see_all see_drop',
    );
    expect(await f.to.psql(f.m.database, 'SELECT count(*) FROM seen')).toBe('0');
    expect(await ledgerIsGone(f)).toBe('t');
  });

  test('brings settings of the database that would have hit our own sessions', async () => {
    const f = await almostDone({
      sql: `CREATE TABLE t (id int); DO $$ BEGIN
        EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database());
        EXECUTE format('ALTER DATABASE %I CONNECTION LIMIT 5', current_database()); END $$;`,
    });
    await f.finish();
    expect(await f.to.psql(f.m.database, 'SHOW default_transaction_read_only')).toBe('on');
    expect(
      await f.to.psql(f.m.database, 'SELECT datconnlimit FROM pg_database WHERE datname = current_database()'),
    ).toBe('5');
  });

  test('keeps ledger and all when the last things fail, and goes on when that was mended', async () => {
    const f = await almostDone({
      sql: `CREATE FUNCTION see() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN END $$;
        CREATE EVENT TRIGGER one ON sql_drop EXECUTE FUNCTION see(); CREATE EVENT TRIGGER two ON ddl_command_end EXECUTE FUNCTION see();`,
    });
    await f.to.psql(f.m.database, 'CREATE EVENT TRIGGER two ON sql_drop EXECUTE FUNCTION see()');
    await expect(f.finish()).rejects.toMatchObject({ type: 'SchemaFailed', details: { object: 'EVENT TRIGGER two' } });
    expect(await f.to.psql(f.m.database, 'SELECT string_agg(evtname, $$ $$) FROM pg_event_trigger')).toBe('two');
    expect(await ledgerIsGone(f)).toBe('f');
    await f.to.psql(f.m.database, 'DROP EVENT TRIGGER two');
    await f.finish();
    expect(await ledgerIsGone(f)).toBe('t');
  });

  test('leaves out a setting of a role that the target lacks, and says so', async () => {
    const role = `missing_${Date.now()}`;
    const f = await almostDone({
      sql: `CREATE ROLE ${role}; DO $$ BEGIN
        EXECUTE format('ALTER ROLE ${role} IN DATABASE %I SET work_mem = ''8MB''', current_database());
        EXECUTE format('ALTER DATABASE %I SET work_mem = ''9MB''', current_database()); END $$;`,
    });
    await f.from.psql(f.m.database, `DROP ROLE ${role}`);
    const { warnings } = await f.finish();
    expect(warnings.join()).toContain(role);
    expect(await f.to.psql(f.m.database, 'SHOW work_mem')).toBe('9MB');
  });

  test('leaves out what only a superuser or the owner of the database may make or say, and tells each', async () => {
    const role = `maker_${Date.now()}`;
    await (await useServer(18)).psql('postgres', `CREATE ROLE ${role} LOGIN`);
    fixture = await schemaFixture({
      targetRole: role,
      plan: { owners: false },
      sql: `CREATE TABLE t (id int PRIMARY KEY);
        CREATE FUNCTION see() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN END $$;
        CREATE EVENT TRIGGER watch ON sql_drop EXECUTE FUNCTION see(); COMMENT ON EVENT TRIGGER watch IS 'who dropped it';
        CREATE PUBLICATION everything FOR ALL TABLES; COMMENT ON PUBLICATION everything IS 'for the warehouse';
        CREATE PUBLICATION whole FOR TABLES IN SCHEMA public; CREATE PUBLICATION one FOR TABLE t;
        DO $$ BEGIN EXECUTE format('COMMENT ON DATABASE %I IS %L', current_database(), 'mine'); END $$;`,
    });
    const f = fixture;
    await createDatabase(f.to.uri(), f.m.database);
    await f.to.psql(
      f.m.database,
      `GRANT CREATE ON DATABASE ${f.m.database} TO ${role}; GRANT ALL ON SCHEMA public TO ${role}`,
    );
    await f.createDatabase();
    await f.copySchema();
    await f.restoreConstraints();
    const { warnings } = await f.readReport();
    const ended = await f.finish();
    expect([...warnings, ...ended.warnings].map((warning) => warning.split(':')[0])).toEqual([
      'PUBLICATION everything was left out',
      'COMMENT PUBLICATION everything was left out',
      'PUBLICATION TABLES IN SCHEMA public.whole public was left out',
      `COMMENT DATABASE ${f.m.database} was left out`,
      'EVENT TRIGGER watch was left out',
      'COMMENT EVENT TRIGGER watch was left out',
    ]);
    expect(await f.to.psql(f.m.database, `SELECT string_agg(pubname, ' ' ORDER BY 1) FROM pg_publication`)).toBe(
      'one whole',
    );
    expect(await ledgerIsGone(f)).toBe('t');
    await f.to.psql(f.m.database, `DROP OWNED BY ${role}; DROP ROLE ${role}`);
  });

  test('analyzes what never was, and a table that cannot be is a warning', async () => {
    const f = await almostDone({
      sql: `CREATE TABLE good (id int); CREATE FUNCTION half(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN 100 / $1; END $$;
        CREATE TABLE bad (id int); CREATE STATISTICS st ON (half(id)) FROM bad;`,
    });
    await f.to.psql(f.m.database, 'INSERT INTO good SELECT generate_series(1, 1000); INSERT INTO bad VALUES (0), (1)');
    const { warnings } = await f.finish();
    expect(warnings).toEqual(['public.bad could not be analyzed: division by zero.']);
    expect(await f.to.psql(f.m.database, `SELECT reltuples FROM pg_class WHERE relname = 'good'`)).toBe('1000');
  });

  test('may run again when all is done', async () => {
    const f = await almostDone({ sql: 'CREATE TABLE t (id int);' });
    expect(await f.finish()).toEqual({ warnings: [] });
    expect(await f.finish()).toEqual({ warnings: [] });
  });

  test('does not drop the ledger under a subscription that still needs it', async () => {
    const f = await almostDone({ sql: 'CREATE TABLE t (id int);' });
    const target = await f.open('target');
    const name = generationName(f.m.id, 0);
    await target.query(`CREATE SUBSCRIPTION ${name} CONNECTION 'host=nowhere' PUBLICATION p WITH (connect = false)`);
    await expect(f.finish()).rejects.toMatchObject({ type: 'NotComplete' });
    expect(await ledgerIsGone(f)).toBe('f');
    await target.query(`ALTER SUBSCRIPTION ${name} SET (slot_name = NONE)`);
    await target.query(`DROP SUBSCRIPTION ${name}`);
  });
});

describe('readReport', () => {
  test('counts what was copied, and keeps a flood of warnings below the limit of a payload', async () => {
    const f = await almostDone({ sql: 'CREATE TABLE t (id int);' });
    await f.to.psql(
      f.m.database,
      `INSERT INTO pgtransit.relation SELECT 1, 's', 't', 's', 't', '{a}', 'binary', NULL, false, 0, 8192, 1, '1';
       INSERT INTO pgtransit.unit (generation, kind, relation, label, bytes, state, rows) VALUES (0, 'copy', 1, 't', 8192, 'done', 7), (0, 'index', 1, 'i', 1, 'done', NULL);
       INSERT INTO pgtransit.event (step, warning, message) SELECT 's', true, g || repeat('w', 5000) FROM generate_series(1, 3000) g;
       INSERT INTO pgtransit.event (step, warning, message) VALUES ('s', false, 'no warning');`,
    );
    const report = await f.readReport();
    expect(report).toMatchObject({ tables: 1, rows: 7, bytes: 8192 });
    expect(JSON.stringify(report).length).toBeLessThan(256 * 1024);
    expect(report.warnings.at(-1)).toBe('And 2800 more warnings.');
  });
});
