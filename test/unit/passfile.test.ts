import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { passwordFromFile } from '../../src/postgres/passfile.ts';
import { createSecrets } from '../../src/temporal/secrets.ts';
import { createLog } from '../../src/temporal/runtime.ts';
import { createDeps } from '../../src/worker.ts';

let directory: string;
let passfile: string;
beforeAll(() => {
  directory = mkdtempSync(path.join(tmpdir(), 'passfile-'));
  passfile = path.join(directory, 'pgpass');
  const lines = [
    '# a comment:*:*:*:no',
    'too:few:fields',
    String.raw`h:5432:d\:b:us\\er:pa\:ss\\word:ignored`,
    'localhost:*:*:socket:by-socket',
    '',
    '*:*:*:anyone:last-line',
  ];
  writeFileSync(passfile, lines.join('\r\n'), { mode: 0o600 });
});
afterAll(() => rmSync(directory, { recursive: true }));

const lookUp = (host: string, port: string, database: string, user: string) =>
  passwordFromFile({ passfile }, { host, port, database, user });

describe('the passfile', () => {
  test('has the password of the first line that fits', () => {
    expect(lookUp('h', '5432', 'd:b', 'us\\er')).toBe('pa:ss\\word');
    expect(lookUp('h', '5433', 'd:b', 'us\\er')).toBeUndefined();
    expect(lookUp('elsewhere', '1', 'x', 'anyone')).toBe('last-line');
    expect(lookUp('/var/run/postgresql', '5432', 'x', 'socket')).toBe('by-socket');
  });

  test('that is not there has none', () => {
    const key = { host: 'h', port: '5432', database: 'd', user: 'u' };
    expect(passwordFromFile({ passfile: '/no/such/file' }, key)).toBeUndefined();
    expect(passwordFromFile({}, key)).toBeUndefined();
  });

  test('is read by the worker, which then keeps its passwords out of everything it says', () => {
    const secrets = createSecrets();
    const deps = createDeps(
      { X: 'host=h user=anyone', PGPASSFILE: passfile, PGTRANSIT_VERBOSE: '1' },
      { searchAttributes: false, secrets },
    );
    expect(deps.verbose).toBe(true);
    deps.endpoint('env:X', 'source');
    expect(secrets.mask('it says last-line')).toBe('it says ***');
  });
});

test('a label is on every line of the log', () => {
  let text = '';
  const output = { write: (line: string) => (text += line) };
  createLog({ PGTRANSIT_LOG_LABEL: 'blue-7' }, createSecrets(), output).info('hello');
  createLog({}, createSecrets(), output).info('hello');
  const [labelled, plain] = text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  expect(labelled).toMatchObject({ msg: 'hello', migration: 'blue-7' });
  expect(plain).not.toHaveProperty('migration');
});
