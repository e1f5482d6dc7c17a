import { afterEach, describe, expect, test } from 'vitest';
import type { SchemaFixture, SchemaFixtureOptions } from '../support/schema-fixture.ts';
import { dumpedSchema, schemaFixture, warningsOf } from '../support/schema-fixture.ts';

let fixture: SchemaFixture | undefined;
afterEach(async () => {
  await fixture?.close();
  fixture = undefined;
});

/** A source with this schema, and a target with the schema but for what waits for the rows. */
async function copied(options: SchemaFixtureOptions): Promise<SchemaFixture> {
  fixture = await schemaFixture(options);
  await fixture.createDatabase();
  await fixture.copySchema();
  return fixture;
}

describe('foreign keys', () => {
  test('that rows break are NOT VALID, with triggers off as they are', async () => {
    const f = await copied({
      sql: `CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE c (id int PRIMARY KEY, p int CONSTRAINT c_p REFERENCES p);
        ALTER TABLE c DISABLE TRIGGER ALL;`,
    });
    await f.to.psql(f.m.database, 'INSERT INTO c VALUES (1, 999)');
    await f.restoreConstraints();
    expect(await warningsOf(f)).toContain('FK CONSTRAINT public.c c_p is NOT VALID');
    const found = await f.to.psql(
      f.m.database,
      `SELECT convalidated, (SELECT string_agg(tgenabled::text, '' ORDER BY tgrelid::regclass::text) FROM pg_trigger WHERE tgconstraint = k.oid)
         FROM pg_constraint k WHERE conname = 'c_p'`,
    );
    expect(found).toBe('f|DDOO');
  });

  const LARGE = `(id int PRIMARY KEY, p int CONSTRAINT "to P" REFERENCES p ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED, filler text)`;
  const SQL = `CREATE TABLE p (id int PRIMARY KEY); INSERT INTO p VALUES (1);
    CREATE TABLE "Large; 1" ${LARGE}; ALTER TABLE "Large; 1" ADD CONSTRAINT self FOREIGN KEY (p) REFERENCES "Large; 1";
    CREATE TABLE large2 ${LARGE}; COMMENT ON CONSTRAINT "to P" ON large2 IS 'said';
    CREATE POLICY mine ON large2 USING (false); ALTER TABLE large2 ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
    CREATE TABLE small (p int REFERENCES p); CREATE TABLE tiny (p int REFERENCES p);
    CREATE TABLE parted (p int REFERENCES p) PARTITION BY LIST (p); CREATE TABLE part PARTITION OF parted DEFAULT;
    CREATE TABLE pk (id int PRIMARY KEY) PARTITION BY LIST (id); CREATE TABLE pk1 PARTITION OF pk FOR VALUES IN (1);
    CREATE TABLE to_parted (p int REFERENCES pk, filler text);
    CREATE TABLE broken (p int, filler text); ALTER TABLE broken ADD CONSTRAINT broken FOREIGN KEY (p) REFERENCES p NOT VALID;
    INSERT INTO "Large; 1" SELECT n, 1, repeat('x', 1000) FROM generate_series(1, 2000) n;
    INSERT INTO large2 SELECT * FROM "Large; 1"; INSERT INTO part SELECT 1 FROM "Large; 1";
    INSERT INTO pk VALUES (1); INSERT INTO to_parted SELECT 1, filler FROM "Large; 1"; INSERT INTO broken SELECT 1, filler FROM "Large; 1";`;

  test.each([
    [14, 15],
    [17, 18],
  ])(
    'of large tables are added first and validated then, before policies, and are as they were: %i to %i',
    async (source, target) => {
      const f = await copied({ source, target, sql: SQL });
      const entries = await f.to.psql(
        f.m.database,
        `SELECT kind || coalesce(' of ' || substring(sql FROM 'VALIDATE.*|REFERENCES.*'), '') FROM pgtransit.entry
        WHERE kind IN ('FK CONSTRAINT', 'FK VALIDATION', 'POLICY') ORDER BY position`,
      );
      const key = 'REFERENCES public.p(id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED NOT VALID;';
      expect(entries.split('\n').filter((entry) => /NOT VALID|VALIDATION|POLICY/.test(entry))).toEqual([
        // as it is on the source, and stays
        'FK CONSTRAINT of REFERENCES public.p(id) NOT VALID;',
        'FK CONSTRAINT of REFERENCES public."Large; 1"(id) NOT VALID;',
        `FK CONSTRAINT of ${key}`,
        `FK CONSTRAINT of ${key}`,
        'FK VALIDATION of VALIDATE CONSTRAINT "self";',
        'FK VALIDATION of VALIDATE CONSTRAINT "to P";',
        'FK VALIDATION of VALIDATE CONSTRAINT "to P";',
        'POLICY',
      ]);
      await f.restoreConstraints();
      await f.finish();
      expect(await dumpedSchema(f.to, f.to, f.m.database)).toBe(await dumpedSchema(f.to, f.from, f.m.database));
      const notValid = `SELECT string_agg(conname, ' ') FROM pg_constraint WHERE contype = 'f' AND NOT convalidated`;
      expect(await f.to.psql(f.m.database, notValid)).toBe('broken');
    },
  );

  test('of large tables are only validated by an attempt that finds them added, and are NOT VALID where rows break them', async () => {
    const f = await copied({ sql: SQL });
    await f.to.psql(f.m.database, `INSERT INTO p VALUES (1); INSERT INTO large2 VALUES (1, 2)`);
    const beforeTheEnd = `(stage IN ('index', 'key') OR sql LIKE '% NOT VALID;%' AND sql NOT LIKE '%broken%')`;
    await f.to.psql(
      f.m.database,
      `SELECT sql FROM pgtransit.entry WHERE ${beforeTheEnd} ORDER BY position \\gexec
       UPDATE pgtransit.entry SET state = 'done' WHERE ${beforeTheEnd};`,
    );
    const before = await f.to.psql(f.m.database, `SELECT max(oid::bigint) FROM pg_constraint WHERE contype = 'f'`);
    await f.restoreConstraints();
    const states = await f.to.psql(
      f.m.database,
      `SELECT conrelid::regclass, conname, convalidated FROM pg_constraint WHERE contype = 'f' AND oid <= ${before} ORDER BY oid`,
    );
    expect(states.split('\n')).toEqual(['"Large; 1"|self|t', '"Large; 1"|to P|t', 'large2|to P|f']);
    expect(await warningsOf(f)).toContain('FK CONSTRAINT public.large2 to P is NOT VALID on the target');
  });

  test('that cannot be split are added in a transaction of their own where the table is large or partitioned, small ones in one', async () => {
    const f = await copied({ sql: SQL });
    await f.to.psql(
      f.m.database,
      `INSERT INTO pk VALUES (1); INSERT INTO to_parted SELECT 1, repeat('x', 1000) FROM generate_series(1, 2000); ANALYZE to_parted;`,
    );
    await f.restoreConstraints();
    const together = await f.to.psql(
      f.m.database,
      `SELECT string_agg(DISTINCT conrelid::regclass::text, ' ' ORDER BY conrelid::regclass::text) FROM pg_constraint
        WHERE contype = 'f' AND conrelid NOT IN ('"Large; 1"'::regclass, 'large2'::regclass) GROUP BY xmin::text ORDER BY 1`,
    );
    expect(together.split('\n')).toEqual(['broken', 'part parted', 'small tiny', 'to_parted']);
  });
});
