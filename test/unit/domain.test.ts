import { describe, expect, test } from 'vitest';
import { readFailure, toApplicationFailure } from '../../src/domain/application-failure.ts';
import { FAILURES, MigrationError } from '../../src/domain/failure.ts';
import { capFindings, describeFinding, MAX_OBJECTS_PER_FINDING } from '../../src/domain/finding.ts';
import type { Finding } from '../../src/domain/finding.ts';
import { migrationId } from '../../src/domain/migration-id.ts';
import { slowestPhase } from '../../src/domain/phase.ts';
import { capClusterReport, MAX_REPORT_BYTES } from '../../src/domain/progress.ts';
import type { DatabaseReport } from '../../src/domain/progress.ts';

const finding = (object: string): Finding => ({
  code: 'no-replica-identity',
  severity: 'error',
  server: 'source',
  database: 'shop',
  object,
  message: 'It has no key.',
  remedy: 'ALTER TABLE t REPLICA IDENTITY FULL;',
});

describe('findings', () => {
  test('names 50 objects of one kind and counts the rest', () => {
    const capped = capFindings(Array.from({ length: 130 }, (_, n) => finding(`public.t${n}`)));
    expect(capped).toHaveLength(MAX_OBJECTS_PER_FINDING + 1);
    expect(capped.at(-1)).toMatchObject({
      severity: 'error',
      message: expect.stringContaining('and 80 more') as string,
    });
  });

  test('reads as one line with the object and the remedy', () => {
    expect(describeFinding(finding('public.t'))).toBe(
      '[no-replica-identity] source shop: public.t: It has no key. To mend it: ALTER TABLE t REPLICA IDENTITY FULL;',
    );
  });
});

describe('a failure', () => {
  test('says first what happened, then what to do, and is read back as both', () => {
    const error = new MigrationError('CopyFailed', 'Table public.t: no.', { object: 'public.t' });
    const failure = toApplicationFailure(error);
    expect(failure.message).toBe(`Table public.t: no. ${FAILURES.CopyFailed.next}`);
    expect(readFailure(new Error('outer', { cause: failure }))).toEqual({
      type: 'CopyFailed',
      message: 'Table public.t: no.',
      details: { object: 'public.t', sqlstate: null, next: FAILURES.CopyFailed.next },
    });
  });

  test('is retried by Temporal only when waiting can mend it', () => {
    expect(toApplicationFailure(new MigrationError('ConnectionFailed', 'x')).nonRetryable).toBe(false);
    expect(toApplicationFailure(new MigrationError('CopyFailed', 'x')).nonRetryable).toBe(true);
  });
});

describe('the phase of a cluster', () => {
  test('is that of its slowest database that still runs', () => {
    expect(slowestPhase(['streaming', 'copying', 'done'])).toBe('copying');
    expect(slowestPhase(['done', 'streaming'])).toBe('streaming');
    expect(slowestPhase(['done', 'failed'])).toBe('failed');
    expect(slowestPhase(['done', 'done'])).toBe('done');
    expect(slowestPhase([])).toBe('validating');
  });
});

describe('the id of a migration', () => {
  test('has 12 hex digits, the same for the same run and another for another run', () => {
    const id = migrationId('blue-green/shop', '0193-aa');
    expect(id).toMatch(/^[0-9a-f]{12}$/);
    expect(migrationId('blue-green/shop', '0193-aa')).toBe(id);
    const ids = new Set(Array.from({ length: 5000 }, (_, n) => migrationId('blue-green/shop', `run-${n}`)));
    expect(ids.size).toBe(5000);
  });
});

describe('a report', () => {
  const database = (n: number): DatabaseReport => ({
    database: `db${n}`,
    method: 'dump',
    status: 'done',
    message: 'm'.repeat(10_000),
    tables: 1,
    rows: 1,
    bytes: 1,
    seconds: {},
    generations: 1,
    walAfterMarkBytes: null,
    cutover: null,
    warnings: Array.from({ length: 500 }, (_, w) => `${w} ${'w'.repeat(400)}`),
  });

  test.each([1, 10, 60])(
    'of %i databases with very long lists stays below 1 MB and says what it left out',
    (databases) => {
      const report = capClusterReport({
        id: 'x',
        status: 'done',
        roles: Array.from({ length: 20_000 }, (_, n) => ({
          role: `role ${n}`,
          status: 'created',
          placeholder: false,
          message: 'role created',
        })),
        databases: Array.from({ length: databases }, (_, n) => database(n)),
      });
      expect(JSON.stringify(report).length).toBeLessThan(MAX_REPORT_BYTES);
      expect(report.databases).toHaveLength(databases);
      expect(report.databases[0]?.warnings.at(-1)).toMatch(/^And \d+ more warnings\.$/);
      expect(report.roles.at(-1)?.message).toMatch(/^And \d+ more roles\.$/);
    },
  );
});
