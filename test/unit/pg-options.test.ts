import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { CommanderError } from 'commander';
import { describe, expect, test } from 'vitest';
import { splitList, splitNames } from '../../src/cli/name-list.ts';
import { pgFlags } from '../../src/cli/pg-flags.ts';
import type { PgOptions } from '../../src/cli/pg-options.ts';
import { processEnvironment, readPgOptions } from '../../src/cli/pg-options.ts';
import { parsePlan } from '../../src/domain/plan.ts';

const SERVERS = ['-s', 'postgres://u:hush@old/app', '-t', 'postgres://u:hush@new/app'];

function read(args: readonly string[], env: NodeJS.ProcessEnv = {}): PgOptions {
  const command = pgFlags()
    .exitOverride()
    .configureOutput({ writeErr: () => undefined });
  command.parse(args, { from: 'user' });
  return readPgOptions(command, { USER: 'me', HOME: '/nowhere', ...env });
}

const plan = (...args: string[]) => read([...SERVERS, ...args]).plan;

function refusal(args: readonly string[], env?: NodeJS.ProcessEnv): string {
  try {
    read(args, env);
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
  return 'it was accepted';
}

describe('the plan of pgtransit pg', () => {
  test('is the default one, with references that only this process can resolve', () => {
    expect(plan()).toEqual(parsePlan({ source: 'local:source', target: 'local:target' }));
    expect(JSON.stringify(plan())).not.toContain('hush');
    expect(plan('--source-for-target', 'postgres://u@inside/app').sourceForTarget).toBe('local:source-for-target');
  });

  test.each([
    [['-f', 'a, b ,"c,d"'], { databases: { include: [], exclude: ['a', 'b', 'c,d'] } }],
    [['--filtered-db=a', '-f', 'b'], { databases: { include: [], exclude: ['a', 'b'] } }],
    [['-xr', 'x, y'], { roles: { exclude: ['x', 'y'], passwords: 'copy' } }],
    [['-xr=x', '--excluded-roles', 'y'], { roles: { exclude: ['x', 'y'], passwords: 'copy' } }],
    [['-xe', 'postgis'], { extensions: { exclude: ['postgis'], tables: true } }],
    [['--no-replicate-extension-tables'], { extensions: { exclude: [], tables: false } }],
    [
      ['--no-replicate-extension-tables', '--replicate-extension-tables'],
      { extensions: { exclude: [], tables: true } },
    ],
    [
      ['--with-table', 'a, s."b,c"', '--with-table', 'd.s.t'],
      { tables: { include: ['a', 's."b,c"', 'd.s.t'], exclude: [] } },
    ],
    [['--skip-table', 'log*'], { tables: { include: [], exclude: ['log*'] } }],
    [['--no-createdb'], { createDatabases: false }],
    [['--no-owner', '--no-privileges'], { owners: false, privileges: false }],
    [['--force-method', 'schema_only'], { method: 'schema-only' }],
    [['--force-method', 'replication_with_dump_fallback'], { method: 'auto' }],
    [['--dbs-max-total-size', '0'], { maxTotalBytes: 0 }],
    [['--dbs-max-total-size', '-1'], { maxTotalBytes: null }],
    [['--skip-db-version-check'], { allowOlderTarget: true }],
    [['--jobs', '8', '--index-jobs', '3'], { parallelism: { databases: 2, copy: 8, index: 3 } }],
    [
      ['--stop-replication'],
      {
        stop: {
          when: 'caught-up',
          maxLagBytes: 0,
          fence: 'none',
          pgbouncer: null,
          awaitSwitch: false,
          deadlineSeconds: 60,
        },
      },
    ],
    [
      ['--max-replication-lag', '1', '--stop-replication', '--fence'],
      {
        stop: {
          when: 'caught-up',
          maxLagBytes: 1,
          fence: 'read-only',
          pgbouncer: null,
          awaitSwitch: false,
          deadlineSeconds: 60,
        },
      },
    ],
    [
      ['--max-replication-lag', '-1'],
      {
        stop: {
          when: 'signal',
          maxLagBytes: 0,
          fence: 'none',
          pgbouncer: null,
          awaitSwitch: false,
          deadlineSeconds: 60,
        },
      },
    ],
  ])('says what %j means', (args, part) => {
    expect(plan(...args)).toEqual({ ...plan(), ...part });
  });

  test('of the documented command line is complete', () => {
    const documented = ['-d', ...SERVERS, '--max-replication-lag', '1', '--stop-replication', '-f', 'DB_TO_SKIP'];
    const options = read(documented);
    expect(options).toMatchObject({ mode: 'migrate', debug: true, stopReplication: true, maxReplicationLag: 1 });
    expect(options.plan.databases.exclude).toEqual(['DB_TO_SKIP']);
  });
});

describe('the servers', () => {
  const env = { SOURCE_SERVICE_URI: 'postgres://u@env-old/app', TARGET_SERVICE_URI: 'postgres://u@env-new/app' };

  test('are those of the flags, and of the environment where no flag names them', () => {
    const { servers } = read(['-s', 'postgres://u@flag/app'], env);
    expect(servers.source).toEqual({ text: 'postgres://u@flag/app', reference: 'postgres://u@flag/app' });
    expect(servers.target).toEqual({ text: 'postgres://u@env-new/app', reference: 'env:TARGET_SERVICE_URI' });
    expect(read(SERVERS).servers.source.reference).toBeNull();
  });

  test('may be a service or key=value pairs', () => {
    const directory = mkdtempSync(path.join(tmpdir(), 'services-'));
    const PGSERVICEFILE = path.join(directory, 'services');
    writeFileSync(PGSERVICEFILE, '[blue]\nhost=old\n');
    const { servers } = read(['-s', 'service:blue', '-t', "host=new password='a b'"], { PGSERVICEFILE });
    expect(servers.source.reference).toBe('service:blue');
    expect(servers.target.reference).toBeNull();
    expect(refusal(['-s', 'service:green', '-t', 'host=new'], { PGSERVICEFILE })).toContain('no section [green]');
    rmSync(directory, { recursive: true });
  });

  test.each([
    [[], {}, /^Which servers\? Name the source \(-s\/--source or SOURCE_SERVICE_URI\) and the target \(-t/],
    [['-s', 'host=h'], { TARGET_SERVICE_URI: ' ' }, /^Which servers\? Name the target/],
    [
      ['-s', 'foo=bar', '-t', 'host=h'],
      {},
      /^The connection string in -s\/--source is not valid: .*libpq does not know\.$/,
    ],
    [['-s', 'host=h sslmod=require', '-t', 'host=h'], {}, /is sslmode meant\?/],
    [['-s', 'postgres://', '-t', 'host=h'], {}, /^The connection string in -s\/--source names no host\.$/],
    [['-s', 'postgres://u:a@b@old/app', '-t', 'host=h'], {}, /an "@", ":", "\/" or "\?" in a password is written %40/],
    [['-t', 'host=h'], { SOURCE_SERVICE_URI: 'postgres://u:100%@h/d' }, /in SOURCE_SERVICE_URI is not valid: a "%"/],
    [
      ['-s', 'host=h sslmode=verify-full sslrootcert=/ca.crt', '-t', 'host=h'],
      {},
      /cannot read the worker's file \/ca\.crt.*--source-for-target/,
    ],
    [['-s', 'host=h sslcrldir=/x', '-t', 'host=h'], {}, /sslcrldir is not supported/],
  ] as const)('%j with %j are refused in one sentence', (args, environment, sentence) => {
    expect(refusal([...args], environment)).toMatch(sentence);
    expect(refusal([...args], environment)).not.toMatch(/a@b|100%/);
  });

  test('are not asked how the target reaches the source where it need not', () => {
    const verified = ['-s', 'host=h sslmode=verify-full sslrootcert=/ca.crt', '-t', 'host=h'];
    expect(read([...verified, '--force-method', 'dump']).plan.method).toBe('dump');
    const other = 'host=h sslmode=verify-full sslrootcert=/on/the/target.crt';
    expect(read([...verified, '--source-for-target', other]).servers.sourceForTarget?.text).toBe(other);
  });
});

describe('what contradicts itself, or is none of what it could be, is refused in one sentence:', () => {
  test.each([
    [
      ['--with-table', 'a', '--skip-table', 'b'],
      "option '--skip-table <tables>' cannot be used with option '--with-table <tables>'",
    ],
    [
      ['--stop-replication', '--max-replication-lag', '-1'],
      '--stop-replication needs a --max-replication-lag of 0 or more',
    ],
    [['--force-method', 'noop'], 'It can be replication, dump, schema_only or replication_with_dump_fallback.'],
    [['--force-method', 'dump', '--fence'], '--fence belongs to the end of a replication'],
    [['--validate', '--detach'], 'cannot be combined with --detach'],
    [['--show-passwords', '--detach'], '--detach rules it out'],
    [['--jobs', '0'], 'It must be a whole number from 1 to 64.'],
    [['--max-replication-lag', 'soon'], 'It must be a whole number from -1 on.'],
    [['--with-table', 'a.b.c.d'], '"a.b.c.d" is no table name'],
    [['--with-table', '"open'], '--with-table has a double quote that is not closed'],
    [['--pgbin', '/nowhere'], '--pgbin names /nowhere, where no pg_dump can be started.'],
    [['--stop-replicaton'], '(Did you mean --stop-replication?)'],
    [['surplus'], 'too many arguments'],
  ])('%j', (args, sentence) => {
    expect(refusal([...SERVERS, ...args])).toContain(sentence);
  });
});

describe('options of this process', () => {
  test('go by the environment, and hold no password', () => {
    const none = processEnvironment(read(SERVERS));
    expect(none).toEqual({});
    const all = processEnvironment(read([...SERVERS, '-v', '-d', '--migration-id', 'm1']));
    expect(all).toEqual({
      PGTRANSIT_DEBUG: '1',
      PGTRANSIT_LOG_LEVEL: 'debug',
      PGTRANSIT_VERBOSE: '1',
      PGTRANSIT_LOG_LABEL: 'm1',
    });
  });

  test('that have no effect say so', () => {
    expect(read([...SERVERS, '-m']).notes).toEqual([expect.stringContaining('-m/--mangle is needless')]);
  });

  test('have the state directory of the flag, else of the environment', () => {
    expect(read([...SERVERS, '--state-dir', '/a'], { PGTRANSIT_STATE_DIR: '/b' }).stateDir).toBe('/a');
    expect(read(SERVERS, { PGTRANSIT_STATE_DIR: '/b' }).stateDir).toBe('/b');
    expect(read(SERVERS, { PGTRANSIT_STATE_DIR: '' }).stateDir).toBeNull();
  });
});

describe('the help', () => {
  const help = pgFlags().helpInformation();

  test.each([
    ...['-d, --debug', '-s, --source', '-t, --target', '-f, --filtered-db', '-xr, --excluded-roles'],
    ...['-xe, --excluded-extensions', '-v, --verbose', '--no-createdb', '-m, --mangle', '--max-replication-lag'],
    ...['--stop-replication', '--validate', '--with-table', '--skip-table', '--replicate-extension-tables'],
    ...['--no-replicate-extension-tables', '--force-method', '--dbs-max-total-size', '--pgbin', '--show-passwords'],
    ...['--skip-db-version-check', '--migration-id', '--report-file', '--fence', '--jobs', '--index-jobs', '--json'],
    ...['--yes', '--detach', '--source-for-target', '--no-owner', '--no-privileges', '--again', '--state-dir'],
  ])('names %s', (flag) => {
    expect(help).toMatch(new RegExp(`^  ${flag}(,| |$)`, 'm'));
  });

  test('is asked for with exit code 0', () => {
    const command = pgFlags()
      .exitOverride()
      .configureOutput({ writeOut: () => undefined });
    const ask = () => command.parse(['--help'], { from: 'user' });
    expect(ask).toThrow(CommanderError);
    expect(ask).toThrow(expect.objectContaining({ exitCode: 0 }));
  });
});

describe('a list', () => {
  test('is cut at commas outside of double quotes', () => {
    expect(splitList(' a ,s."x,y" ,, "p""q,r".t', '--x')).toEqual(['a', 's."x,y"', '"p""q,r".t']);
    expect(splitNames('My-Db, "a,b", " c ", "d""e"', '-f')).toEqual(['My-Db', 'a,b', ' c ', 'd"e']);
    expect(splitNames('', '-f')).toEqual([]);
  });
});
