import { randomBytes } from 'node:crypto';
import { afterEach, describe, expect, it } from 'vitest';
import { createLargeObjectActivities } from '../../activities/large-objects.ts';
import type { Session } from '../../src/postgres/connection.ts';
import type { CopyFixture, FixtureOptions } from '../support/copy-fixture.ts';
import { copyFixture, countRows, eventually, runActivity } from '../support/copy-fixture.ts';

let fixture: CopyFixture | undefined;
afterEach(async () => {
  await fixture?.close();
  fixture = undefined;
});

async function prepare(options: FixtureOptions) {
  fixture = await copyFixture(options);
  const own = fixture;
  return {
    ...own,
    copy: () => runActivity(() => createLargeObjectActivities(own.deps).copyLargeObjects(own.m, 0), []),
  };
}

const contents = (session: Session) =>
  session.query<{ oid: number; md5: string }>(
    'SELECT oid, md5(lo_get(oid)), length(lo_get(oid)) FROM pg_largeobject_metadata ORDER BY oid',
  );

describe('copyLargeObjects', () => {
  it('copies empty, small, sparse and big ones as the snapshot saw them, once', async () => {
    const { copy, source, target } = await prepare({
      rows: `SELECT lo_create(1001); SELECT lo_from_bytea(1002, 'small'); SELECT lo_create(1003); SELECT lo_put(1003, 3000000, 'after a hole');
             SELECT lo_from_bytea(1004, decode(repeat('00', 262144), 'hex')); SELECT lo_from_bytea(1005, decode(repeat('00', 700000), 'hex'));
             SELECT lo_from_bytea(2000 + i, convert_to(i::text, 'UTF8')) FROM generate_series(1, 200) i`,
    });
    const before = await contents(source);
    await source.query(`SELECT lo_put(1002, 0, 'later'), lo_unlink(1001), lo_from_bytea(1009, 'new')`);
    const copied = await copy();
    expect(copied).toMatchObject({ objects: 205 });
    expect(await contents(target)).toEqual(before);
    expect(await copy()).toEqual(copied);
    expect(await contents(target)).toEqual(before);
    expect(await countRows(target, 'pg_largeobject WHERE loid = 1003')).toBeLessThan(200);
  });

  it('carries owner, privileges with their grantors, and comments', async () => {
    const roles = ['owner', 'reader', 'friend', 'gone'].map((name) => `lo_${name}_${randomBytes(4).toString('hex')}`);
    const [owner = '', reader = '', friend = '', gone = ''] = roles;
    const create = (names: string[]) => names.map((name) => `CREATE ROLE ${name}`).join(';');
    const { copy, source, target } = await prepare({
      onTarget: create([owner, reader, friend]),
      rows: `${create(roles)}; SELECT lo_create(1001); SELECT lo_create(1002); SELECT lo_create(1003);
             ALTER LARGE OBJECT 1001 OWNER TO ${owner}; GRANT SELECT ON LARGE OBJECT 1001 TO ${reader} WITH GRANT OPTION;
             SET ROLE ${reader}; GRANT SELECT ON LARGE OBJECT 1001 TO ${friend}; RESET ROLE;
             GRANT UPDATE ON LARGE OBJECT 1001 TO PUBLIC; REVOKE UPDATE ON LARGE OBJECT 1001 FROM ${owner};
             COMMENT ON LARGE OBJECT 1001 IS 'it''s a \\ comment'; GRANT SELECT ON LARGE OBJECT 1002 TO ${gone}`,
    });
    const read = (session: Session) =>
      session.query(
        `SELECT oid, pg_get_userbyid(lomowner) AS owner, (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(lomacl) a) AS acl, obj_description(oid, 'pg_largeobject') AS comment
           FROM pg_largeobject_metadata WHERE oid <> 1002 ORDER BY oid`,
      );
    try {
      await copy();
      expect(await read(target)).toEqual(await read(source));
      expect(await countRows(target, `pgtransit.event WHERE warning AND message LIKE '%${gone}%'`)).toBe(1);
    } finally {
      await source.query(`SELECT lo_unlink(oid) FROM pg_largeobject_metadata`);
      await target.query(`SELECT lo_unlink(oid) FROM pg_largeobject_metadata`);
      await source.query(`DROP ROLE ${roles.join(', ')}`);
      await target.query(`DROP ROLE ${[owner, reader, friend].join(', ')}`);
    }
  });

  it('goes on after its backend was killed, and copies nothing twice', async () => {
    const { copy, source, target } = await prepare({
      rows: `SELECT lo_from_bytea(1000 + i, convert_to(repeat(i::text, 30000), 'UTF8')) FROM generate_series(1, 300) i`,
    });
    const lane = copy();
    lane.catch(() => undefined);
    await eventually('some objects copied', async () => (await countRows(target, 'pg_largeobject_metadata')) > 0);
    await target.query(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'pgtransit%' AND datname = current_database()`,
    );
    await expect(lane).rejects.toMatchObject({ type: 'ConnectionFailed' });
    expect(await copy()).toMatchObject({ objects: 300 });
    expect(await contents(target)).toEqual(await contents(source));
  });

  it('refuses a target that has one of them from somebody else', async () => {
    const { copy } = await prepare({
      rows: `SELECT lo_create(1001)`,
      onTarget: `SELECT lo_from_bytea(1001, 'foreign')`,
    });
    await expect(copy()).rejects.toMatchObject({ type: 'TargetNotEmpty' });
  });

  it('has nothing to do where there are none', async () => {
    const { copy } = await prepare({});
    expect(await copy()).toEqual({ objects: 0, bytes: 0 });
  });
});
