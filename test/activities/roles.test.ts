import { readFileSync } from 'node:fs';
import { MockActivityEnvironment } from '@temporalio/testing';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readIdentity } from '../../src/postgres/identity.ts';
import { createRoleActivities } from '../../activities/roles.ts';
import type { RoleMigration } from '../../activities/roles.ts';
import { parsePlan } from '../../src/domain/plan.ts';
import type { RoleReport } from '../../src/domain/progress.ts';
import { connect } from '../../src/postgres/connection.ts';
import type { Endpoint } from '../../src/postgres/connection.ts';
import { parseConnInfo } from '../../src/postgres/conninfo.ts';
import { runActivity } from '../support/copy-fixture.ts';
import type { PostgresServer } from '../../lab/postgres-server.ts';
import { startPostgres } from '../../lab/postgres-server.ts';
import { fixtureSql } from '../support/schema-fixture.ts';

let source: PostgresServer;
let target: PostgresServer;

beforeAll(async () => {
  // Roles belong to the whole cluster, so these servers are this file's own. The target logs all it is told.
  [source, target] = await Promise.all([
    startPostgres({ major: 17 }),
    startPostgres({
      major: 18,
      settings: { log_statement: 'all', log_min_duration_statement: '0', log_min_error_statement: 'error' },
    }),
  ]);
  await source.psql('postgres', await fixtureSql('roles'));
});
afterAll(async () => {
  await Promise.all([source.remove(), target.remove()]);
});

interface Who {
  sourceUri?: string;
  targetUri?: string;
  /** Of the step, as Temporal counts them. */
  attempt?: number;
}

/** The made-up passwords of the latest migration. */
let told: ReadonlyMap<string, string> = new Map();

async function migrateRoles(
  plan: unknown,
  { sourceUri = source.uri(), targetUri = target.uri(), attempt = 1 }: Who = {},
): Promise<Map<string, RoleReport>> {
  const endpoint = (_reference: string, server: 'source' | 'target'): Endpoint => ({
    server,
    info: parseConnInfo(server === 'source' ? sourceUri : targetUri, 'the test'),
  });
  const identity = async (server: 'source' | 'target') => {
    const session = await connect(endpoint('', server), { applicationName: 'test' });
    const found = await readIdentity(session);
    await session.close();
    return found;
  };
  const input: RoleMigration = {
    plan: parsePlan(plan),
    servers: { source: await identity('source'), target: await identity('target') },
    cluster: 'test',
  };
  const onPlaceholders = (passwords: ReadonlyMap<string, string>) => void (told = passwords);
  const activities = createRoleActivities({ endpoint, searchAttributes: false, onPlaceholders });
  const environment = new MockActivityEnvironment({ attempt });
  const reports = await runActivity(() => activities.migrateRoles(input), [], environment);
  return new Map(reports.map((report) => [report.role, report]));
}

async function dropRoles(): Promise<void> {
  const own = `FROM pg_roles WHERE rolname ~ '^(t_|T )'`;
  for (const verb of ['DROP OWNED BY', 'DROP ROLE'])
    for (const sql of (await target.psql('postgres', `SELECT format('${verb} %I', rolname) ${own}`))
      .split('\n')
      .filter(Boolean))
      await target.psql('postgres', sql);
}

/** What a role that is no superuser made, only it or a superuser may take back. */
async function forgetMaker(): Promise<void> {
  await target.psql('postgres', 'REASSIGN OWNED BY maker TO postgres; DROP OWNED BY maker');
  await dropRoles();
}

const ATTRIBUTES = `SELECT rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls,
  rolconnlimit, rolvaliduntil, rolpassword, shobj_description(oid, 'pg_authid'),
  (SELECT setconfig FROM pg_db_role_setting WHERE setrole = a.oid AND setdatabase = 0) FROM pg_authid a WHERE rolname ~ '^(t_|T )' ORDER BY 1`;
const MEMBERSHIPS = `SELECT roleid::regrole, member::regrole, grantor::regrole, admin_option, inherit_option, set_option
  FROM pg_auth_members WHERE member::regrole::text ~ '^"?(t_|T )' ORDER BY roleid::regrole::text, member::regrole::text`;
const PARAMETERS = 'SELECT parname, paracl FROM pg_parameter_acl ORDER BY 1';

describe('migrateRoles', () => {
  test('brings roles with attributes, verifiers, settings, comments and memberships exactly as they are', async () => {
    const reports = await migrateRoles({});
    expect([...reports.values()].filter(({ status }) => status !== 'created').map(({ role }) => role)).toEqual([
      'postgres',
    ]);
    for (const sql of [ATTRIBUTES, MEMBERSHIPS, PARAMETERS])
      expect(await target.psql('postgres', sql)).toBe(await source.psql('postgres', sql));
  });

  test('brings the first role of a cluster too, whose oid is 16384', async () => {
    expect(await source.psql('postgres', `SELECT oid FROM pg_roles WHERE rolname = 't_first'`)).toBe('16384');
    expect(await target.psql('postgres', `SELECT count(*) FROM pg_roles WHERE rolname = 't_first'`)).toBe('1');
  });

  test('tells no verifier to the log of the target', () => {
    const log = readFileSync(target.logFile, 'utf8');
    expect(log).toContain('pg_advisory_xact_lock');
    expect(log).not.toContain('SCRAM-SHA-256$');
  });

  test('leaves a role that is there as it is, and says so', async () => {
    await target.psql('postgres', 'ALTER ROLE t_plain CREATEDB; REVOKE t_group FROM t_plain');
    const reports = await migrateRoles({});
    expect(new Set([...reports.values()].map(({ status }) => status))).toEqual(new Set(['exists']));
    expect(await target.psql('postgres', `SELECT rolcreatedb FROM pg_roles WHERE rolname = 't_plain'`)).toBe('t');
    expect(await target.psql('postgres', MEMBERSHIPS)).not.toContain('t_group|t_plain');
  });

  test('makes each role once when two attempts run at the same time', async () => {
    await dropRoles();
    const [one, two] = await Promise.all([migrateRoles({}), migrateRoles({})]);
    const statuses = [one.get('t_plain')?.status, two.get('t_plain')?.status];
    expect(statuses.sort()).toEqual(['created', 'exists']);
    expect(await target.psql('postgres', MEMBERSHIPS)).toBe(await source.psql('postgres', MEMBERSHIPS));
  });

  test('leaves out excluded roles and what they are members of', async () => {
    await dropRoles();
    const reports = await migrateRoles({ roles: { exclude: ['t_group'] } });
    expect(reports.has('t_group')).toBe(false);
    expect(await target.psql('postgres', `SELECT count(*) FROM pg_roles WHERE rolname = 't_group'`)).toBe('0');
    expect(reports.get('t_plain')?.status).toBe('created');
  });

  test('gives a random password where it shall not copy one, and none to a role that had none', async () => {
    await dropRoles();
    const reports = await migrateRoles({ roles: { passwords: 'placeholder' } });
    const verifier = (role: string) => `SELECT coalesce(rolpassword, 'none') FROM pg_authid WHERE rolname = '${role}'`;
    expect(await target.psql('postgres', verifier('t_login'))).toContain('SCRAM-SHA-256$');
    expect(await target.psql('postgres', verifier('t_login'))).not.toBe(
      await source.psql('postgres', verifier('t_login')),
    );
    expect(await target.psql('postgres', verifier('t_plain'))).toBe('none');
    expect(reports.get('t_login')).toMatchObject({
      placeholder: true,
      message: expect.stringContaining('set a new one') as string,
    });
    expect(reports.get('t_plain')).toMatchObject({ placeholder: false });
    // What was made up is told to the worker itself, and to nobody else.
    const password = told.get('t_login') ?? '';
    expect(password).toMatch(/^[\w-]{32}$/);
    expect(told.has('t_plain')).toBe(false);
    expect(JSON.stringify([...reports])).not.toContain(password);
    expect(readFileSync(target.logFile, 'utf8')).not.toContain(password);
  });

  test('gives random passwords when it may not read the verifiers', async () => {
    await dropRoles();
    await source.psql('postgres', 'CREATE ROLE reader LOGIN; GRANT EXECUTE ON FUNCTION pg_control_system() TO reader');
    const reports = await migrateRoles(
      { roles: { exclude: ['reader'] } },
      { sourceUri: source.uri('postgres', { user: 'reader' }) },
    );
    expect(reports.get('t_login')?.message).toContain('set a new one');
    expect(reports.get('t_group')?.message).not.toContain('set a new one');
  });

  test('makes what it may when the target refuses attributes, and says what is lost', async () => {
    await dropRoles();
    await target.psql(
      'postgres',
      'CREATE ROLE maker LOGIN CREATEROLE; GRANT EXECUTE ON FUNCTION pg_control_system() TO maker',
    );
    const plan = { roles: { exclude: ['reader'] } };
    const reports = await migrateRoles(plan, { targetUri: target.uri('postgres', { user: 'maker' }) });
    expect(reports.get('t_super')).toMatchObject({
      status: 'created',
      message: expect.stringContaining('SUPERUSER') as string,
    });
    expect(reports.get('t_forever')?.message).toMatch(/^It lost the setting log_statement: permission denied/);
    expect(reports.get('t_plain')?.status).toBe('created');
    // … and may make it the owner of something
    expect(await target.psql('postgres', `SELECT pg_has_role('maker', 't_plain', 'SET')`)).toBe('t');
  });

  test('tells no password that it makes up to the log of a target that it may not silence', async () => {
    await forgetMaker();
    const plan = { roles: { exclude: ['reader'], passwords: 'placeholder' } };
    await migrateRoles(plan, { targetUri: target.uri('postgres', { user: 'maker' }) });
    expect([...told.keys()]).toContain('t_login');
    const log = readFileSync(target.logFile, 'utf8');
    expect(log).toMatch(/CREATE ROLE "t_login" WITH .* PASSWORD 'SCRAM-SHA-256\$4096:/);
    for (const password of told.values()) expect(log).not.toContain(password);
  });

  test('says of a role that an attempt which died may have made that its password may be random', async () => {
    const plan = { roles: { exclude: ['reader'], passwords: 'placeholder' } };
    const reports = await migrateRoles(plan, { attempt: 2 });
    expect(reports.get('t_login')).toMatchObject({
      status: 'exists',
      message: expect.stringContaining('If an earlier attempt of this step made it, its password is random') as string,
    });
    expect(reports.get('t_plain')?.message).toBe('It was there already and is left as it is.');
  });

  test('goes on when one role fails, and says why', async () => {
    await forgetMaker();
    await source.psql(
      'postgres',
      `CREATE ROLE t_bad ROLE t_plain; UPDATE pg_authid SET rolconnlimit = -5 WHERE rolname = 't_bad'`,
    );
    const reports = await migrateRoles({ roles: { exclude: ['reader'] } });
    expect(reports.get('t_bad')).toMatchObject({ status: 'failed', message: 'invalid connection limit: -5.' });
    expect(reports.get('t_plain')).toMatchObject({
      status: 'created',
      message: 'It is no member of "t_bad", which is not there.',
    });
    await source.psql('postgres', 'DROP ROLE t_bad');
    expect(await target.psql('postgres', MEMBERSHIPS)).toBe(await source.psql('postgres', MEMBERSHIPS));
  });

  test('touches nothing when the target is another server than the one that was validated', async () => {
    const endpoint = (_reference: string, server: 'source' | 'target'): Endpoint => ({
      server,
      info: parseConnInfo(source.uri(), 'the test'),
    });
    const input: RoleMigration = {
      plan: parsePlan({}),
      servers: {
        source: { systemIdentifier: '1', version: 170000 },
        target: { systemIdentifier: '2', version: 180000 },
      },
      cluster: 'test',
    };
    const activities = createRoleActivities({ endpoint, searchAttributes: false });
    await expect(runActivity(() => activities.migrateRoles(input), [])).rejects.toMatchObject({ type: 'WrongServer' });
  });
});

describe('settings of all roles', () => {
  const SETTINGS = `SELECT setconfig FROM pg_db_role_setting WHERE setrole = 0 AND setdatabase = 0`;
  const plan = { roles: { exclude: ['reader'] } };

  beforeAll(() =>
    source.psql(
      'postgres',
      `ALTER ROLE ALL SET search_path = "My Schema", public; ALTER ROLE ALL SET work_mem = '9MB'; ALTER ROLE ALL SET session_preload_libraries = 'auto_explain'`,
    ),
  );
  afterAll(() => source.psql('postgres', 'ALTER ROLE ALL RESET ALL'));

  test('come along, but for those that could keep everybody out, and are set once', async () => {
    const reports = await migrateRoles(plan);
    expect(reports.get('ALL')).toMatchObject({
      status: 'created',
      message:
        'For all roles, search_path, work_mem is as on the source. ' +
        'session_preload_libraries is not set: it could keep everybody out of the target.',
    });
    expect(await target.psql('postgres', SETTINGS)).toBe(`{"search_path=\\"My Schema\\", public",work_mem=9MB}`);
    const again = await migrateRoles(plan);
    expect(again.get('ALL')?.message).toMatch(/^session_preload_libraries is not set/);
  });

  test('leave the values of the target as they are', async () => {
    await target.psql('postgres', `ALTER ROLE ALL RESET ALL; ALTER ROLE ALL SET work_mem = '3MB'`);
    const reports = await migrateRoles(plan);
    expect(reports.get('ALL')?.message).toContain('work_mem is not set: the target has a value of its own.');
    expect(await target.psql('postgres', SETTINGS)).toContain('work_mem=3MB');
  });

  test('do not come to a target that serves other databases', async () => {
    await target.psql('postgres', 'ALTER ROLE ALL RESET ALL');
    await target.psql('postgres', 'CREATE DATABASE theirs');
    const reports = await migrateRoles(plan);
    expect(reports.get('ALL')).toMatchObject({
      status: 'exists',
      message: expect.stringContaining('it would hold for database "theirs" of the target too') as string,
    });
    expect(await target.psql('postgres', SETTINGS)).toBe('');
    await target.psql('postgres', 'DROP DATABASE theirs');
  });

  test('are left out where only a superuser may set them', async () => {
    const reports = await migrateRoles(plan, { targetUri: target.uri('postgres', { user: 'maker' }) });
    expect(reports.get('ALL')?.message).toContain('work_mem is not set: only a superuser of the target may set it.');
  });
});
