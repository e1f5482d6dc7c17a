import { afterEach, describe, expect, test } from 'vitest';
import type { SchemaFixture, SchemaFixtureOptions } from '../support/schema-fixture.ts';
import { fixtureSql, schemaFixture } from '../support/schema-fixture.ts';

const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

async function restored(options: SchemaFixtureOptions): Promise<SchemaFixture> {
  const f = await schemaFixture(options);
  closing.push(f.close);
  await f.createDatabase();
  await f.copySchema();
  await f.restoreConstraints();
  return f;
}

describe('the schemas of both servers', () => {
  test.each([14, 17])('are the same after they were copied from %i to 18', async (source) => {
    const f = await restored({ source, sql: await fixtureSql('schema') });
    expect(await f.compareSchemas()).toEqual({ differences: [] });
  });

  test('differ in objects, definitions, owners and grants, but for what the plan leaves out', async () => {
    const sql = `
      CREATE SCHEMA "the shop"; CREATE TABLE "the shop".item (id int PRIMARY KEY, price int);
      CREATE INDEX by_price ON "the shop".item (price);
      CREATE FUNCTION "the shop".total() RETURNS int LANGUAGE sql AS 'SELECT 1';
      CREATE VIEW "the shop".dear AS SELECT * FROM "the shop".item WHERE price > 100;
      CREATE FUNCTION "the shop".f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
      CREATE TRIGGER watch AFTER INSERT ON "the shop".item EXECUTE FUNCTION "the shop".f();
      GRANT SELECT ON "the shop".item TO pg_read_all_data;
      CREATE TYPE "the shop".colour AS ENUM ('red')`;
    const f = await restored({ source: 17, sql });
    const { database } = f.m;
    await f.from.psql(
      database,
      `CREATE OR REPLACE FUNCTION "the shop".total() RETURNS int LANGUAGE sql AS 'SELECT 2';
       CREATE MATERIALIZED VIEW "the shop".later AS SELECT 1 AS one; GRANT SELECT ON "the shop".item TO pg_monitor`,
    );
    await f.to.psql(database, `ALTER TYPE "the shop".colour OWNER TO pg_database_owner; CREATE TABLE public.mine ()`);
    const { differences } = await f.compareSchemas();
    expect(differences).toEqual([
      'Only on the source: MATERIALIZED VIEW "the shop".later.',
      'Only on the target: TABLE public.mine.',
      'Of another owner: TYPE "the shop".colour.',
      'Defined in another way: ACL the shop.TABLE item, FUNCTION the shop.total().',
    ]);
    const without = { ...f.m, plan: { ...f.m.plan, owners: false, privileges: false } };
    expect((await f.compareSchemas(without)).differences.join()).not.toMatch(/ACL|owner/);

    await f.to.psql(database, `DROP INDEX "the shop".by_price; DROP TRIGGER watch ON "the shop".item`);
    await expect(f.compareSchemas()).rejects.toMatchObject({
      type: 'NotComplete',
      message:
        'The target lacks what was restored there, and the source still has: INDEX "the shop".by_price, TRIGGER the shop.item watch.',
    });
  });
});
