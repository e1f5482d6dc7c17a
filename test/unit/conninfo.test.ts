import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { formatConnInfo, parseConnInfo, resolveReference } from '../../src/postgres/conninfo.ts';
import { hostsOf } from '../../src/postgres/hosts.ts';
import { displayName, quoteIdent, quoteLiteral } from '../../src/postgres/identifier.ts';
import { redact, toMigrationError } from '../../src/postgres/sqlstate.ts';
import { subscriptionConnInfo } from '../../src/postgres/subscription-conninfo.ts';

describe('a connection string', () => {
  test.each([
    [
      'postgres://u:p%40ss%2Fw@h:5433/My%20Db?sslmode=require',
      { user: 'u', password: 'p@ss/w', host: 'h', port: '5433', dbname: 'My Db', sslmode: 'require' },
    ],
    ['postgresql://h', { host: 'h' }],
    [
      'postgres://u@h1:1,h2:2/db?target_session_attrs=read-write',
      { user: 'u', host: 'h1,h2', port: '1,2', dbname: 'db', target_session_attrs: 'read-write' },
    ],
    [
      'postgres://u:%E2%82%AC%20+%25@h/d?options=-c%20geqo%3Doff',
      {
        user: 'u',
        password: '€ +%',
        host: 'h',
        dbname: 'd',
        options: '-c geqo=off',
      },
    ],
    ['postgres://:5433/db?ssl=true', { port: '5433', dbname: 'db', sslmode: 'require' }],
    ['host=h\npassword=a\\ b', { host: 'h', password: 'a b' }],
    ['postgres://[::1]:5432/db', { host: '::1', port: '5432', dbname: 'db' }],
    ['postgres:///db?host=/var/run/postgresql', { dbname: 'db', host: '/var/run/postgresql' }],
    [
      "host=h user='a b' password='it\\'s \\\\ x' dbname = d",
      { host: 'h', user: 'a b', password: "it's \\ x", dbname: 'd' },
    ],
  ])('is read as libpq reads it: %s', (text, expected) => {
    expect(parseConnInfo(text, 'X')).toEqual(expected);
  });

  test.each(['postgres://u:100%@h/db', 'nonsense', "host='open", 'postgres://u:a@b@c/d?x'])(
    'that is wrong is refused without being repeated: %s',
    (text) => {
      expect(() => parseConnInfo(text, 'SOURCE_SERVICE_URI')).toThrow(
        /^The connection string in SOURCE_SERVICE_URI is not valid/,
      );
      expect(() => parseConnInfo(text, 'SOURCE_SERVICE_URI')).not.toThrow('100%@');
    },
  );

  test('that holds a parameter which does not exist is refused by what it resembles', () => {
    expect(() => parseConnInfo('postgres://h/d?sslmod=require', 'X')).toThrow('(is sslmode meant?)');
    expect(() => parseConnInfo('host=h hush-hush=1', 'X')).toThrow(/not valid/);
    expect(() => parseConnInfo('host=h hushhush=1', 'X')).toThrow(/does not know\.$/);
    expect(() => parseConnInfo('postgres://u:%00@h', 'X')).toThrow('%00');
  });

  test('is completed by its service, then by the environment, then by defaults', () => {
    const directory = mkdtempSync(join(tmpdir(), 'service-'));
    const file = join(directory, 'pg_service.conf');
    writeFileSync(file, '[blue]\nhost=h\nport=5\nuser=of-service\n');
    const env = {
      ...{
        X: 'service=blue port=6',
        PGSERVICEFILE: file,
        HOME: '/nowhere',
        USER: 'me',
        PGPASSWORD: '',
        PGAPPNAME: 'x',
      },
      ...{ PGUSER: 'of-env', PGDATABASE: 'd', PGSSLMODE: 'require', PGSSLROOTCERT: '/ca', PGCONNECT_TIMEOUT: '3' },
    };
    const expected = {
      host: 'h',
      port: '6',
      user: 'of-service',
      dbname: 'd',
      sslmode: 'require',
      connect_timeout: '3',
    };
    expect(resolveReference('env:X', env)).toEqual({ ...expected, sslrootcert: '/ca' });
    expect(resolveReference('env:X', env, 'target-server')).toEqual(expected);
    const other = { X: `service=blue servicefile=${file}`, HOME: '/nowhere', USER: 'me' };
    expect(resolveReference('env:X', other)).toMatchObject({ host: 'h' });
    const system = { PGSYSCONFDIR: directory, HOME: '/nowhere' };
    expect(resolveReference('service:blue', system)).toMatchObject({ host: 'h' });
    rmSync(directory, { recursive: true });
  });

  test('names as many ports as hosts, or one for all', () => {
    expect(hostsOf({ host: 'a,b', port: '1' }).map(({ port }) => port)).toEqual([1, 1]);
    expect(hostsOf({ host: 'a,b', port: '1,' }).map(({ port }) => port)).toEqual([1, 5432]);
    expect(() => hostsOf({ host: 'a,b,c', port: '1,2' })).toThrow('names 3 hosts, but 2 ports');
    expect(() => hostsOf({ host: 'a,b', hostaddr: '1.1.1.1' })).toThrow('names 2 hosts, but 1 addresses');
    const seen = new Set(
      Array.from({ length: 200 }, () => hostsOf({ host: 'a,b,c', load_balance_hosts: 'random' })[0]?.host),
    );
    expect(seen.size).toBe(3);
  });

  test.each([
    ['sslpassword=x', 'sslpassword cannot be handed to pg_dump'],
    ['gssencmode=require', 'GSSAPI'],
    ['sslrootcert=system sslmode=require', 'sslmode=verify-full only'],
  ])('that asks for what cannot be is refused: %s', (text, sentence) => {
    expect(() => resolveReference('env:X', { X: `host=h ${text}`, USER: 'me' })).toThrow(sentence);
  });

  test('for a subscription has one password, or none', () => {
    const directory = mkdtempSync(join(tmpdir(), 'passfile-'));
    const passfile = join(directory, 'pgpass');
    writeFileSync(passfile, 'a:*:*:u:one\nb:*:*:u:two\n', { mode: 0o600 });
    const info = { user: 'u', passfile, dbname: 'other' };
    expect(subscriptionConnInfo({ ...info, host: 'a' }, 'My Db', 'worker')).toBe(
      `user='u' host='a' password='one' dbname='My Db'`,
    );
    expect(() => subscriptionConnInfo({ ...info, host: 'a,b' }, 'd', 'worker')).toThrow('different passwords');
    rmSync(directory, { recursive: true });
  });

  test('is written so that libpq reads every character of a password back', () => {
    const password = Array.from({ length: 95 }, (_, n) => String.fromCharCode(32 + n)).join('');
    const info = { host: 'h', user: 'ü', password };
    expect(parseConnInfo(formatConnInfo(info), 'X')).toEqual(info);
  });

  test('may be a section of the service file', () => {
    const directory = mkdtempSync(join(tmpdir(), 'service-'));
    const file = join(directory, 'pg_service.conf');
    writeFileSync(file, '# comment\n[other]\nhost=no\n[blue]\nhost=h\nport=5\n');
    expect(resolveReference('service:blue', { PGSERVICEFILE: file, USER: 'me' })).toEqual({
      host: 'h',
      port: '5',
      user: 'me',
      dbname: 'postgres',
    });
    expect(() => resolveReference('service:green', { PGSERVICEFILE: file })).toThrow('has no section [green]');
    rmSync(directory, { recursive: true });
  });

  test('that is not set says which variable', () => {
    expect(() => resolveReference('env:SOURCE_SERVICE_URI', {})).toThrow(
      'The environment variable SOURCE_SERVICE_URI is not set in the worker.',
    );
  });
});

describe('names', () => {
  test('are inert, whatever they hold', () => {
    expect(quoteIdent('a"; DROP TABLE x; --')).toBe('"a""; DROP TABLE x; --"');
    expect(quoteLiteral("it's \\")).toBe("E'it''s \\\\'");
    expect(displayName('public', 'My table')).toBe('public."My table"');
  });
});

describe('errors', () => {
  test.each([
    'connection to postgres://u:hush@h failed',
    "could not connect: password='hush' host=h",
    'password=hush',
    "CREATE ROLE x PASSWORD 'hush'",
  ])('lose their passwords: %s', (text) => {
    expect(redact(text)).not.toContain('hush');
  });

  test.each([
    ['57P01', 'ConnectionFailed'],
    ['53300', 'ServerBusy'],
    ['55P03', 'ServerBusy'],
    ['53100', 'ServerError'],
    ['28P01', 'AuthenticationFailed'],
    ['42501', 'PrivilegeMissing'],
    ['23505', 'ServerError'],
  ])('with SQLSTATE %s are %s', (code, type) => {
    const error = toMigrationError(Object.assign(new Error('boom'), { code }), {
      server: 'target',
      doing: 'testing',
      object: 'public.t',
    });
    expect(error.type).toBe(type);
    expect(error.message).toBe('While testing on the target: boom.');
    expect(error.details).toMatchObject({ sqlstate: code, object: 'public.t' });
  });

  test.each([
    { code: 'ECONNREFUSED', syscall: 'connect' },
    { code: 'EPIPE', syscall: 'write' },
    { code: 'ECONNRESET', syscall: 'read' },
  ])('of the network are ConnectionFailed: $code', ({ code, syscall }) => {
    const error = Object.assign(new Error(`${syscall} ${code}`), { code, syscall });
    const failure = toMigrationError(error, { server: 'source', doing: 'connecting' });
    expect(failure).toMatchObject({ type: 'ConnectionFailed', details: { sqlstate: null } });
  });
});
