import { afterEach, describe, expect, test } from 'vitest';
import { openBeside, openTarget } from '../../activities/context.ts';
import { applicationName } from '../../src/contract.ts';
import { besideAnother, eventually, runActivity } from '../support/copy-fixture.ts';
import type { SchemaFixture, SchemaFixtureOptions } from '../support/schema-fixture.ts';
import { dumpedSchema, schemaFixture, warningsOf } from '../support/schema-fixture.ts';
import { useServer } from '../support/servers.ts';

let fixture: SchemaFixture | undefined;
afterEach(async () => {
  await fixture?.close();
  fixture = undefined;
});

/** A source with this schema, and a target with the database and its ledger. */
async function prepared(options: SchemaFixtureOptions): Promise<SchemaFixture> {
  fixture = await schemaFixture(options);
  await fixture.createDatabase();
  return fixture;
}

describe('a schema of many tables', () => {
  const MANY = `
    SELECT format('CREATE TABLE t%1$s (id int PRIMARY KEY, up int, v text); COMMENT ON TABLE t%1$s IS ''%1$s''', n) FROM generate_series(100, 149) n \\gexec
    SELECT format('ALTER TABLE t%s ADD CONSTRAINT up FOREIGN KEY (up) REFERENCES t%s', n, n - 1) FROM generate_series(100, 149) n WHERE n % 5 <> 0 \\gexec
    SELECT format('ALTER TABLE t%s ADD CONSTRAINT self FOREIGN KEY (up) REFERENCES t%1$s', n) FROM generate_series(100, 149) n \\gexec`;
  const transactions = (f: SchemaFixture, catalog: string, where: string) =>
    f.to.psql(f.m.database, `SELECT count(DISTINCT xmin::text) > 1 FROM ${catalog} WHERE ${where}`);

  test('is made on several sessions at once, and none of them stays', async () => {
    const f = await prepared({ sql: MANY });
    await f.copySchema();
    expect(await transactions(f, 'pg_class', `relname ~ '^t1..$'`)).toBe('t');
    await f.restoreConstraints();
    expect(await transactions(f, 'pg_constraint', `conname IN ('up', 'self')`)).toBe('t');
    await f.finish();
    expect(await dumpedSchema(f.to, f.to, f.m.database)).toBe(await dumpedSchema(f.to, f.from, f.m.database));
    expect(await f.to.psql('postgres', `SELECT count(*) FROM pg_stat_activity WHERE datname = '${f.m.database}'`)).toBe(
      '0',
    );
  });

  test('is made in order where tables need each other', async () => {
    const f = await prepared({
      sql: `${MANY}
        CREATE SEQUENCE numbers; CREATE TABLE z_first (id serial, n int DEFAULT nextval('numbers'));
        SELECT format('CREATE TABLE c%s (own serial, more int GENERATED ALWAYS AS IDENTITY, CHECK (v IS NOT NULL)) INHERITS (t%1$s, z_first)', n) FROM generate_series(100, 149) n \\gexec
        CREATE VIEW a_view AS SELECT * FROM t100; CREATE TABLE b_typed (v a_view, w t149);
        CREATE TABLE parted (id int, PRIMARY KEY (id)) PARTITION BY LIST (id);
        SELECT format('CREATE TABLE a%s PARTITION OF parted FOR VALUES IN (%1$s)', n) FROM generate_series(100, 149) n \\gexec
        ALTER TABLE t100 ADD FOREIGN KEY (up) REFERENCES parted;
        SELECT format('ALTER TABLE a%s ADD FOREIGN KEY (id) REFERENCES t%1$s', n) FROM generate_series(100, 149) n \\gexec`,
    });
    await f.copySchema();
    await f.restoreConstraints();
    expect(await warningsOf(f)).toBe('');
    await f.finish();
    expect(await dumpedSchema(f.to, f.to, f.m.database)).toBe(await dumpedSchema(f.to, f.from, f.m.database));
  });

  test('names the object that fails beside others, which stay, and goes on from there when it was mended', async () => {
    const f = await prepared({
      sql: `CREATE EXTENSION hstore; ${MANY}
        ALTER TABLE t120 ADD h hstore;`,
      plan: { extensions: { exclude: ['hstore'] } },
    });
    const tables = () => f.to.psql(f.m.database, `SELECT count(*) FROM pg_class WHERE relname ~ '^t1..$'`);
    await expect(f.copySchema()).rejects.toMatchObject({
      ...{ type: 'SchemaFailed', details: { object: 'TABLE public.t120' } },
    });
    expect(Number(await tables())).toBeGreaterThanOrEqual(30);
    await f.to.psql(f.m.database, 'CREATE EXTENSION hstore');
    await f.copySchema();
    expect(await tables()).toBe('50');
    await f.to.psql(f.m.database, 'INSERT INTO t133 VALUES (1, 2)');
    await f.restoreConstraints();
    expect(await warningsOf(f)).toMatch(/FK CONSTRAINT public\.t133 self is NOT VALID/);
    expect(await f.to.psql(f.m.database, `SELECT count(*) FROM pg_constraint WHERE contype = 'f'`)).toBe('90');
  });

  test('is made once when two attempts run at the same time', async () => {
    const f = await prepared({ sql: MANY });
    await besideAnother(() => f.copySchema());
    await besideAnother(() => f.restoreConstraints());
    await f.finish();
    expect(await dumpedSchema(f.to, f.to, f.m.database)).toBe(await dumpedSchema(f.to, f.from, f.m.database));
  });

  test('is made on the sessions that there are, where the role may have no more', async () => {
    const role = `limited_${process.pid}`;
    const to = await useServer(18);
    await to.psql('postgres', `CREATE ROLE ${role} LOGIN CREATEDB CONNECTION LIMIT 2`);
    const f = await prepared({ sql: MANY, targetRole: role, plan: { owners: false } });
    await to.psql('postgres', `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '${role}'`);
    await f.copySchema();
    await f.restoreConstraints();
    await f.finish();
    expect(await to.psql(f.m.database, `SELECT count(*) FROM pg_constraint WHERE contype = 'f'`)).toBe('90');
    await f.close();
    fixture = undefined;
    await to.psql('postgres', `DROP ROLE ${role}`);
  });

  test('gets no more sessions from an attempt that another one has taken over', async () => {
    const f = await prepared({ sql: MANY });
    await f.copySchema();
    const names = `SELECT count(*) FROM pg_stat_activity WHERE application_name = '${applicationName(f.m.id, 'control')}' AND datname = '${f.m.database}'`;
    const asleep = await runActivity(() => openTarget(f.deps, f.m, 'control'), []);
    const beside = await runActivity(() => openBeside(f.deps, f.m, asleep, 2, {}), []);
    expect(await f.to.psql('postgres', names)).toBe('3');
    await f.restoreConstraints();
    for (const session of [asleep, ...beside]) await expect(session.query('SELECT 1')).rejects.toThrow();
    await expect(runActivity(() => openBeside(f.deps, f.m, asleep, 2, {}), [])).rejects.toThrow();
    await eventually('no session', async () => (await f.to.psql('postgres', names)) === '0');
  });
});
