import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { projectRoot } from '../../lab/tools.ts';
import type { Session } from '../../src/postgres/connection.ts';
import { bringLedgerUpToDate, LEDGER_VERSION } from '../../src/postgres/ledger-version.ts';
import { runActivity } from '../support/copy-fixture.ts';
import type { ReplicationFixture } from '../support/replication-fixture.ts';
import { replicationFixture } from '../support/replication-fixture.ts';

/**
 * The ledger of each version, as a migration left it that is half copied: `ledger-1.sql` and so on. THE RULE: one of a
 * released version never changes. A test that fails here says that the tables in src/postgres/ledger.ts have changed
 * without a step in src/postgres/ledger-version.ts.
 */
const FIXTURES = path.join(projectRoot, 'test', 'support', 'fixtures');
const versions = readdirSync(FIXTURES).flatMap((name) => {
  const found = /^ledger-(\d+)\.sql$/.exec(name);
  return found === null ? [] : [Number(found[1])];
});

const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0)) await close();
});

async function fixture(): Promise<ReplicationFixture> {
  const f = await replicationFixture({
    schema: 'CREATE TABLE public.account (id int PRIMARY KEY)',
    rows: 'INSERT INTO public.account SELECT generate_series(1, 100)',
  });
  closing.push(async () => {
    // As far as it came in the test, which is further than the steps that clear up know.
    await f.target.query('UPDATE pgtransit.migration SET ledger_version = $1', [LEDGER_VERSION]);
    await f.close();
  });
  return f;
}

/** Puts the ledger of that version in the place of the one that is there, as if it were of this migration. */
async function withLedgerOf({ target, m }: ReplicationFixture, version: number): Promise<void> {
  await target.query('DROP SCHEMA pgtransit CASCADE');
  await target.query(readFileSync(path.join(FIXTURES, `ledger-${version}.sql`), 'utf8'));
  await target.query('UPDATE pgtransit.migration SET id = $1', [m.id]);
}

/** Every column, constraint and index, in an order that a step cannot help changing. */
const tablesOf = (target: Session): Promise<{ what: string }[]> =>
  target.query(`
    SELECT format('%s.%s %s %s %s %s', attrelid::regclass, attname, format_type(atttypid, atttypmod), attnotnull, attidentity,
                  (SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE (adrelid, adnum) = (attrelid, attnum))) AS what
      FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
     WHERE relnamespace = 'pgtransit'::regnamespace AND relkind = 'r' AND attnum > 0 AND NOT attisdropped
    UNION ALL SELECT format('%s %s', conrelid::regclass, pg_get_constraintdef(oid))
      FROM pg_constraint WHERE connamespace = 'pgtransit'::regnamespace
    UNION ALL SELECT pg_get_indexdef(indexrelid)
      FROM pg_index JOIN pg_class ON pg_class.oid = indrelid WHERE relnamespace = 'pgtransit'::regnamespace
    ORDER BY 1`);

const version = async (target: Session): Promise<number> =>
  (await target.one<{ ledger_version: number }>('SELECT ledger_version FROM pgtransit.migration')).ledger_version;

const TWO_STEPS = [
  'ALTER TABLE pgtransit.unit ADD COLUMN note text',
  "UPDATE pgtransit.unit SET note = 'was ' || state; ALTER TABLE pgtransit.unit ALTER COLUMN note SET NOT NULL",
];

test('there is a ledger of every version', () => {
  expect(versions.sort()).toEqual(Array.from({ length: LEDGER_VERSION }, (_, i) => i + 1));
});

test.each(versions)('the ledger of version %i becomes what a new one is, and keeps what it says', async (old) => {
  const f = await fixture();
  const wanted = await tablesOf(f.target);
  await withLedgerOf(f, old);
  await bringLedgerUpToDate(f.target, f.m.id);
  expect(await tablesOf(f.target)).toEqual(wanted);
  expect(await version(f.target)).toBe(LEDGER_VERSION);
  const units = await f.target.query('SELECT label, state, rows FROM pgtransit.unit ORDER BY id');
  expect(units).toEqual([
    { label: 'public.account', state: 'done', rows: '100' },
    { label: 'public."order"', state: 'todo', rows: null },
  ]);
});

describe('the ledger of an older worker', () => {
  test('is brought up to date by the first session of a newer one, also a read-only one, and only once by two', async () => {
    const f = await fixture();
    await withLedgerOf(f, 1);
    const other = await f.open('target');
    await other.query('SET default_transaction_read_only = on');
    await Promise.all([f.target, other].map((session) => bringLedgerUpToDate(session, f.m.id, TWO_STEPS)));
    expect(await version(f.target)).toBe(3);
    const notes = await f.target.query('SELECT note FROM pgtransit.unit ORDER BY id');
    expect(notes).toEqual([{ note: 'was done' }, { note: 'was todo' }]);
  });

  test('stays as it is while a lane of the older worker uses it, and is tried again', async () => {
    const f = await fixture();
    await withLedgerOf(f, 1);
    const lane = await f.open('target');
    await lane.query('BEGIN; SELECT FROM pgtransit.unit FOR UPDATE');
    await expect(bringLedgerUpToDate(f.target, f.m.id, TWO_STEPS)).rejects.toMatchObject({ code: '55P03' });
    expect(await version(f.target)).toBe(1);
    await lane.query('COMMIT');
    await bringLedgerUpToDate(f.target, f.m.id, TWO_STEPS);
    expect(await version(f.target)).toBe(3);
  });

  test('is left alone when it is of another migration', async () => {
    const f = await fixture();
    await bringLedgerUpToDate(f.target, 'ffffffffffff', TWO_STEPS);
    expect(await version(f.target)).toBe(LEDGER_VERSION);
  });
});

test('a worker that is older than the ledger leaves every step to a newer one, with a sentence', async () => {
  const f = await fixture();
  await f.target.query('UPDATE pgtransit.migration SET ledger_version = 99');
  for (const step of [() => runActivity(f.steps.openSnapshot, [f.m, 0]), () => runActivity(f.steps.undo, [f.m])])
    await expect(step()).rejects.toMatchObject({
      type: 'WorkerOutdated',
      retryable: true,
      message: `The bookkeeping on the target is of version 99, made by a newer pgtransit; this worker knows it up to version ${LEDGER_VERSION}.`,
    });
  expect(await version(f.target)).toBe(99);
});
