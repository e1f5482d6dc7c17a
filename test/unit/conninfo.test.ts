import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { formatConnInfo, parseConnInfo, resolveReference } from '../../src/postgres/conninfo.ts';
import { displayName, quoteIdent, quoteLiteral } from '../../src/postgres/identifier.ts';
import { redact, toMigrationError } from '../../src/postgres/sqlstate.ts';

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

  test('of the network are ConnectionFailed', () => {
    const error = Object.assign(new Error('connect ECONNREFUSED 127.0.0.1:1'), { code: 'ECONNREFUSED' });
    expect(toMigrationError(error, { server: 'source', doing: 'connecting' }).type).toBe('ConnectionFailed');
  });
});
