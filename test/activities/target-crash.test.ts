import { afterAll, beforeAll, expect, test } from 'vitest';
import { createCopyActivities } from '../../activities/copy.ts';
import { createIndexActivities } from '../../activities/indexes.ts';
import { createSchemaActivities } from '../../activities/schema.ts';
import type { PostgresServer } from '../../lab/postgres-server.ts';
import { startPostgres } from '../../lab/postgres-server.ts';
import type { CopyFixture } from '../support/copy-fixture.ts';
import { copyFixture, runActivity } from '../support/copy-fixture.ts';

/** Commits return before they are on disk, and nobody brings them there soon: a crash takes back what did not ask for it. */
let target: PostgresServer;
let fixture: CopyFixture;

beforeAll(async () => {
  target = await startPostgres({ major: 18, settings: { synchronous_commit: 'off', wal_writer_delay: '10s' } });
  fixture = await copyFixture({
    target,
    schema: 'CREATE TABLE public.t (i int); CREATE TABLE public.late (i int)',
    rows: 'INSERT INTO public.t SELECT generate_series(1, 1000)',
    entries: [
      { table: 'public.t', sql: 'CREATE INDEX t_i ON public.t (i);' },
      { table: 'public.late', sql: 'CREATE INDEX late_i ON public.late (i);' },
    ],
  });
});

afterAll(async () => {
  await fixture.close();
  await target.remove();
});

const ask = (sql: string): Promise<string> => target.psql(fixture.m.database, sql);

async function crash(): Promise<void> {
  await target.kill();
  await target.start();
}

test('a crash of the target takes back nothing of a step that is over', async () => {
  const { m, deps } = fixture;
  const sizes = { tinyTableBytes: 0, splitTableBytes: 1e12, chunkBytes: 1e12 };
  const copy = createCopyActivities(deps, sizes);
  const schema = createSchemaActivities(deps);
  await runActivity(() => copy.planCopy(m, 0), []);

  await runActivity(() => copy.copyTables(m, 0, 0), []);
  await crash();
  expect(await ask('SELECT count(*) FROM t')).toBe('1000');
  expect(await ask(`SELECT count(*) FROM pgtransit.unit WHERE kind = 'copy' AND state = 'todo'`)).toBe('0');

  await runActivity(() => createIndexActivities(deps).buildIndexes(m, 0), []);
  await crash();
  expect(await ask(`SELECT to_regclass('public.t_i')`)).toBe('t_i');
  expect(await ask(`SELECT count(*) FROM pgtransit.unit WHERE state = 'todo'`)).toBe('0');

  await ask(`UPDATE pgtransit.entry SET state = 'todo' WHERE position = 1; DROP INDEX late_i`);
  await runActivity(() => schema.restoreConstraints(m), []);
  await crash();
  expect(await ask(`SELECT to_regclass('public.late_i')`)).toBe('late_i');
});
