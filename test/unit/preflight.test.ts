import { describe, expect, it } from 'vitest';
import type { Finding } from '../../src/domain/finding.ts';
import type { Session } from '../../src/postgres/connection.ts';
import type { Table } from '../../src/postgres/scope.ts';
import type { ClusterContext, DatabaseContext } from '../../src/preflight/check.ts';
import { runChecks } from '../../src/preflight/check.ts';
import { CHECKS } from '../../src/preflight/checks.ts';
import { outdatedMinor, pooler, programs, sourceVersion, targetTooOld } from '../../src/preflight/connections.ts';
import { sourceForTarget } from '../../src/preflight/reach.ts';
import { decide } from '../../src/preflight/method.ts';
import { wraparound } from '../../src/preflight/source-settings.ts';
import { size } from '../../src/preflight/units.ts';

const check = {
  code: 'some-check',
  severity: 'error',
  server: 'source',
  needs: 'any',
  title: 'looking',
} as const;

describe('a check that throws', () => {
  it('is one finding that is unknown, with its own severity, and the others still run', async () => {
    const denied = Object.assign(new Error('permission denied for table x'), { code: '42501' });
    const findings = await runChecks(
      [
        { ...check, run: () => Promise.reject(denied) },
        { ...check, code: 'other', severity: 'warning', run: () => Promise.resolve([{ message: 'Seen.' }]) },
      ],
      {},
      'db',
    );
    expect(findings).toEqual([
      {
        code: 'some-check',
        severity: 'error',
        unknown: true,
        server: 'source',
        database: 'db',
        object: null,
        message: 'This could not be checked. While looking on the source: permission denied for table x.',
        remedy: 'Grant the privilege that is named, or use a role that has it.',
      },
      {
        code: 'other',
        severity: 'warning',
        server: 'source',
        database: 'db',
        object: null,
        message: 'Seen.',
        remedy: null,
      },
    ]);
  });

  it('because the connection is gone ends the inspection, which is then tried again', async () => {
    const gone = () => Promise.reject(new Error('Connection terminated unexpectedly'));
    await expect(runChecks([{ ...check, run: gone }], {}, null)).rejects.toMatchObject({ type: 'ConnectionFailed' });
  });
});

describe('the table of checks', () => {
  it('has one entry for each code and server', () => {
    const keys = CHECKS.map(({ code, server }) => `${code} ${server}`);
    expect(keys.filter((key, i) => keys.indexOf(key) !== i)).toEqual([]);
    for (const { code } of CHECKS) expect(code).toMatch(/^[a-z]+(-[a-z]+)*$/);
  });

  it('lets only errors of replication decide about the method', () => {
    for (const { decides, needs, severity } of CHECKS.filter(({ decides }) => decides === true))
      expect([decides, needs, severity]).toEqual([true, 'replication', 'error']);
  });
});

describe('a connection pooler', () => {
  const session = (pid: number, answers: number[]) =>
    ({ pid, one: () => Promise.resolve({ pid: answers.shift() ?? pid }) }) as unknown as Session;

  it('shows by process ids that differ, between statements or from the one of the login', async () => {
    expect(await pooler(session(7, [7, 7, 7, 7]))).toEqual([]);
    expect(await pooler(session(7, [7, 8, 7, 9]))).toMatchObject([{ remedy: 'Use the address of the server itself.' }]);
    expect(await pooler(session(1, [7, 7, 7, 7]))).toHaveLength(1);
  });
});

const at = (source: number, target = source) =>
  ({ source: { version: source }, target: { version: target } }) as unknown as ClusterContext;

describe('versions', () => {
  it('without the publication fix are warned of', async () => {
    for (const [version, warnings] of [
      [170004, 1],
      [170005, 0],
      [140017, 1],
      [140018, 0],
      [180000, 0],
      [120022, 0],
    ] as const)
      expect(await outdatedMinor(at(version))).toHaveLength(warnings);
  });

  it('before 10 are refused as a source', async () => {
    expect(await sourceVersion(at(90624))).toMatchObject([
      { message: expect.stringMatching(/PostgreSQL 9\.6; 10 is the oldest/) as string },
    ]);
    expect((await sourceVersion(at(90624)))[0]?.severity).toBeUndefined();
    expect(await sourceVersion(at(100023))).toEqual([]);
  });

  it('before 14 are refused as a target', async () => {
    expect(await targetTooOld(at(100023, 130023))).toMatchObject([
      { message: expect.stringMatching(/13; 14 is the oldest/) as string },
    ]);
    expect(await targetTooOld(at(100023, 140000))).toEqual([]);
  });

  it('for which the worker has no client programs are refused, for each program', async () => {
    expect((await programs(at(990000))).map(({ object }) => object)).toEqual(['pg_dump', 'pg_restore']);
    expect(await programs(at(170000, 180000))).toEqual([]);
  });
});

it('a source whose certificates only the worker has is not tried by the target', async () => {
  const context = {
    plan: { sourceForTarget: null },
    sourceForTarget: { host: 'db', sslmode: 'verify-full', sslrootcert: '/etc/worker/ca.crt' },
    database: 'd',
  } as unknown as DatabaseContext;
  expect(await sourceForTarget(context)).toMatchObject([
    {
      message: expect.stringMatching(/\/etc\/worker\/ca\.crt/) as string,
      remedy: expect.stringMatching(/sourceForTarget/) as string,
    },
  ]);
});

it('transaction ids that are about to run out are a warning, then an error', async () => {
  const aged = (age: number) =>
    ({ database: 'd', source: { one: () => Promise.resolve({ age }) } }) as unknown as DatabaseContext;
  expect(await wraparound(aged(1_000_000_000))).toEqual([]);
  expect(await wraparound(aged(1_600_000_000))).toMatchObject([{ severity: 'warning' }]);
  expect(await wraparound(aged(2_050_000_000))).toMatchObject([{ severity: 'error' }]);
});

it('sizes read well', () => {
  expect([0, 1023, 1024, 5 * 1024 ** 3].map(size)).toEqual(['0 bytes', '1023 bytes', '1.0 kB', '5.0 GB']);
});

describe('method auto', () => {
  const obstacle = (more: Partial<Finding> = {}): Finding => ({
    ...{ code: 'replica-identity', severity: 'error', server: 'source', database: 'd', object: 'public.t' },
    ...{ message: 'It has no key.', remedy: null },
    ...more,
  });
  const table = { schema: 'public', name: 't', bytes: 2048, persistence: 'p', extension: false } as Table;

  it('is replication when nothing is in the way', () => {
    expect(decide('d', [], [table], 'signal')).toMatchObject({ method: 'replication', findings: [] });
  });

  it('is a dump for what is known to be in the way, which is no error then', () => {
    const decision = decide('d', [obstacle(), obstacle({ object: 'public.u' })], [table], 'signal');
    expect(decision).toMatchObject({
      method: 'dump',
      reason: 'Replication is not possible (and 1 more findings). public.t: It has no key.',
    });
    expect(decision.findings.map(({ code, severity }) => [code, severity])).toEqual([
      ['dump-only', 'warning'],
      ['replica-identity', 'warning'],
      ['replica-identity', 'warning'],
    ]);
  });

  it('stays replication, and blocked, where it could not be told: a dump would lose writes', () => {
    const decision = decide('d', [obstacle({ unknown: true })], [table], 'signal');
    expect(decision.method).toBe('replication');
    expect(decision.findings).toMatchObject([{ severity: 'error', unknown: true }]);
  });
});
