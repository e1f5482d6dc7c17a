import { beforeAll, describe, expect, it } from 'vitest';
import type { PostgresAccess } from '../../lab/postgres-access.ts';
import { createDatabase, useServer } from '../support/servers.ts';
import { complaints, DUMP, REPLICATION, SOUND, usePair } from './preflight-liars.ts';
import type { Servers } from './preflight-support.ts';
import { errorsOf, inspectDatabase, migrationOf, recheck, withCode } from './preflight-support.ts';

let source: PostgresAccess;
let target: PostgresAccess;
let servers: Servers;
let newDatabase: (sql?: string) => Promise<string>;

beforeAll(async () => {
  ({ source, target, servers, newDatabase } = await usePair());
});

describe.concurrent('a sound database', () => {
  it('has no finding at all, and is replicated', async () => {
    const database = await newDatabase(SOUND);
    const inspection = await inspectDatabase(servers, database);
    expect(inspection).toMatchObject({ database, method: 'replication', tables: 2 });
    expect(complaints(inspection.findings)).toEqual([]);
    expect(inspection.reason).toBe('Nothing is in the way of replication.');
    expect(inspection.bytes).toBeGreaterThan(0);
  });

  it.each([14, 15, 18])('of PostgreSQL %i has none either', async (major) => {
    const server = await useServer(major);
    const { name } = await createDatabase(server.uri());
    await server.psql(name, SOUND);
    const from = { source: server.uri(), target: major === 18 ? servers.source : servers.target };
    const { findings } = await inspectDatabase(from, name, { allowOlderTarget: true });
    expect(complaints(findings)).toEqual([]);
  });
});

describe.concurrent('the method', () => {
  it('is a dump where a table cannot be replicated, and the warning says what is lost', async () => {
    const database = await newDatabase(`${SOUND} CREATE TABLE no_key (a int)`);
    const { method, reason, findings } = await inspectDatabase(servers, database);
    expect(method).toBe('dump');
    expect(reason).toMatch(/^Replication is not possible\. public\.no_key: The table has neither a primary key/);
    expect(errorsOf(findings)).toEqual([]);
    expect(withCode(findings, 'dump-only')[0]?.message).toMatch(/is lost: .*public\.no_key[^.]*\.$/);
    const stopping = await inspectDatabase(servers, database, { stop: { when: 'caught-up' } });
    expect(withCode(stopping.findings, 'dump-only')[0]?.message).toMatch(
      /to stop once the target has caught up, which a dump never does\.$/,
    );
    expect(withCode(findings, 'replica-identity')).toMatchObject([{ severity: 'warning', object: 'public.no_key' }]);
  });

  it('needs no replica identity of tables that are excluded, and none for a dump', async () => {
    const database = await newDatabase(`${SOUND} CREATE TABLE no_key (a int)`);
    expect((await inspectDatabase(servers, database, { tables: { exclude: ['no_key'] } })).method).toBe('replication');
    expect(await inspectDatabase(servers, database, DUMP)).toMatchObject({
      method: 'dump',
      reason: 'The plan asks for it.',
      findings: [{ code: 'plan' }],
    });
  });
});

describe.concurrent('the plan', () => {
  it('is told for each database: method and why, tables, bytes, what it takes on either side, what does not come along', async () => {
    const database = await newDatabase(`${SOUND} CREATE UNLOGGED TABLE u (a int); SELECT lo_create(0);
      CREATE INDEX half ON sound (v); UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'half'::regclass`);
    const planOf = async (plan: object) =>
      withCode((await inspectDatabase(servers, database, { ...plan })).findings, 'plan').map(({ message }) => message);
    expect(await planOf({ parallelism: { copy: 6, index: 3 } })).toEqual([
      expect.stringMatching(
        /^Method replication: Nothing is in the way of replication\. Its 3 tables have \d+\.\d kB\. It takes up to 9 sessions on the source and 11 on the target, one replication slot and one WAL sender on the source, one subscription with its apply worker on the target\. Not carried over: changes of the schema while it runs; one invalid index; replication slots, statistics and temporary tables\.$/,
      ),
    ]);
    expect(await planOf({ ...DUMP, tables: { exclude: ['u'] }, owners: false })).toEqual([
      expect.stringMatching(
        /^Method dump: The plan asks for it\. Its 2 tables .* Not carried over: whatever is written after the start of the copy; one invalid index; rows of the tables that the filter leaves out; owners; /,
      ),
    ]);
    expect(await planOf({ method: 'schema-only' })).toEqual([expect.stringMatching(/up to 3 sessions .* over: rows;/)]);
  });
});

describe('recheck', () => {
  it('tries again whether the target reaches the source', async () => {
    const database = await newDatabase(SOUND);
    const elsewhere = { ...servers, sourceForTarget: source.uri() };
    const m = await migrationOf(elsewhere, database, { ...REPLICATION, sourceForTarget: 'env:U' });
    await recheck(elsewhere, m);
    const nowhere = { ...servers, sourceForTarget: source.uri().replace(`:${source.port}/`, ':1/') };
    await expect(recheck(nowhere, m)).rejects.toThrow(/source-for-target.*Connection refused/s);
  });

  it('passes where nothing has changed, and does not mind what is its own', async () => {
    const database = await newDatabase(SOUND);
    const m = await migrationOf(servers, database);
    await recheck(servers, m);
    await source.psql(database, `CREATE PUBLICATION pgtransit_${m.id}_g0 FOR TABLE sound`);
    await createDatabase(target.uri(), database);
    await target.psql(
      database,
      `CREATE SCHEMA pgtransit; CREATE TABLE pgtransit.migration (id text, workflow_id text); INSERT INTO pgtransit.migration VALUES ('${m.id}', 'x');
       CREATE TABLE restored (a int)`,
    );
    await recheck(servers, m);
  });

  it('refuses what came since validation, naming it', async () => {
    const database = await newDatabase(SOUND);
    const m = await migrationOf(servers, database);
    await source.psql(database, 'CREATE TABLE came_later (a int)');
    await expect(recheck(servers, m)).rejects.toMatchObject({
      type: 'ValidationFailed',
      message: expect.stringMatching(/replica-identity.*public\.came_later/s) as string,
    });
    await source.psql(database, 'DROP TABLE came_later');
    await createDatabase(target.uri(), database);
    await target.psql(database, 'CREATE TABLE filled_meanwhile (a int)');
    await expect(recheck(servers, m)).rejects.toThrow(/target-not-empty.*filled_meanwhile/s);
  });
});
