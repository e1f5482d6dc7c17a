import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { PostgresServer } from '../../lab/postgres-server.ts';
import { startPostgres } from '../../lab/postgres-server.ts';
import { leftovers, startMigration } from '../support/live-migration.ts';

let source: PostgresServer;
let target: PostgresServer;

beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres({ major: 17 }), startPostgres({ major: 18 })]);
});

afterAll(() => Promise.all([source.remove(), target.remove()]));

const SCHEMA = `
CREATE TABLE kept (id int PRIMARY KEY, n serial); INSERT INTO kept (id) SELECT generate_series(1, 3);
CREATE TABLE "Odd. Name" (id int PRIMARY KEY REFERENCES kept); INSERT INTO "Odd. Name" VALUES (1);
CREATE TABLE part (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE part_low PARTITION OF part FOR VALUES FROM (0) TO (10);
CREATE TABLE part_high PARTITION OF part FOR VALUES FROM (10) TO (20);
INSERT INTO part VALUES (1), (11);
CREATE TABLE other (id int PRIMARY KEY); INSERT INTO other VALUES (1);
CREATE TABLE refers (id int PRIMARY KEY REFERENCES other); INSERT INTO refers VALUES (1);`;

async function counts(database: string): Promise<Record<string, number>> {
  const text = await target.psql(
    database,
    `SELECT relname || '|' || (xpath('/row/n/text()', query_to_xml(format('SELECT count(*) AS n FROM %s', oid::regclass), false, true, '')))[1]
       FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') ORDER BY relname`,
  );
  return Object.fromEntries(text.split('\n').map((line) => [line.split('|')[0] ?? '', Number(line.split('|')[1])]));
}

describe.each(['dump', 'replication'])('table filters, by %s', (method) => {
  const [one, two] = [`one_${method}`, `two_${method}`];

  beforeAll(async () => {
    for (const database of [one, two]) {
      await source.psql('postgres', `CREATE DATABASE ${database}`);
      await source.psql(database, SCHEMA);
    }
  });

  test('bring the rows of the tables that are meant, in each database, and the schema of all', async () => {
    const include = [
      `${one}.public.kept`,
      'part',
      `${two}.public."Odd. Name"`,
      `${two}.public.kept`,
      `${two}.public.ref*`,
    ];
    const plan = { method, tables: { include }, stop: { when: 'caught-up' } };
    const migration = await startMigration({ source, target, databases: [one, two], plan });
    const report = await migration.report();
    await migration.close();
    const none = { kept: 0, 'Odd. Name': 0, part: 2, part_low: 1, part_high: 1, other: 0, refers: 0 };
    expect(await counts(one)).toEqual({ ...none, kept: 3 });
    expect(await counts(two)).toEqual({ ...none, kept: 3, 'Odd. Name': 1, refers: 1 });
    // The sequence of a table that is meant comes along, that of another does not count on.
    expect(await target.psql(one, `SELECT nextval('kept_n_seq')`)).toBe('4');
    // What it refers to was left out, so the rows cannot satisfy it.
    expect(await target.psql(two, `SELECT convalidated FROM pg_constraint WHERE conname = 'refers_id_fkey'`)).toBe('f');
    expect(report.databases.find(({ database }) => database === two)?.warnings.join()).toContain('NOT VALID');
    expect(await leftovers(source, target, [one, two])).toEqual([]);
  });

  test('that match nothing are refused, and mean nothing else', async () => {
    const plan = { method, tables: { include: ['nonesuch'] } };
    const migration = await startMigration({ source, target, databases: [one], plan });
    await expect(migration.report()).rejects.toMatchObject({
      cause: { type: 'ValidationFailed', message: expect.stringContaining('filter-matches-nothing') as string },
    });
    await migration.close();
  });
});
