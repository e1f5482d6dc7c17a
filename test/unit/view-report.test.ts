import { mkdirSync, mkdtempSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { own } from '../../lab/processes.ts';
import { answerOf } from '../../src/cli/answer.ts';
import { countFindings, renderFindings } from '../../src/cli/view/findings.ts';
import { renderReport } from '../../src/cli/view/report.ts';
import { writeReportFile } from '../../src/cli/view/report-file.ts';
import type { Finding } from '../../src/domain/finding.ts';
import type { DatabaseReport } from '../../src/domain/progress.ts';

const finding = (other: Partial<Finding>): Finding => ({
  ...{ code: 'replica-identity', severity: 'error', server: 'source', database: 'shop' },
  ...{ object: 'public.log', message: 'public.log has no key.', remedy: null },
  ...other,
});

describe('findings', () => {
  test('are sorted by severity, and those of one kind stand together above SQL to paste', () =>
    expect(
      renderFindings([
        finding({ code: 'locale', severity: 'info', database: null, object: null, message: 'Locales differ.' }),
        finding({ remedy: 'ALTER TABLE public.log REPLICA IDENTITY FULL;' }),
        finding({ code: 'slots', severity: 'warning', unknown: true, object: null, message: 'Could not\nlook.' }),
        finding({ object: 'public."My  T"', message: 'Has no key.', remedy: 'ALTER TABLE public."My  T" …;' }),
        finding({ database: 'other', remedy: "SELECT 1;\nSELECT 2; -- don't forget" }),
      ]),
    ).toBe(`ERROR replica-identity (source, shop, 2 times)
  public.log has no key.
  public."My  T": Has no key.
    ALTER TABLE public.log REPLICA IDENTITY FULL;
    ALTER TABLE public."My  T" …;
ERROR replica-identity (source, other, public.log)
  public.log has no key.
    SELECT 1;
    SELECT 2; -- don't forget
WARNING, UNKNOWN slots (source, shop)
  Could not look.
INFO locale (source)
  Locales differ.`));

  test('of a hostile server stay text, and are not to be pasted', () =>
    expect(
      renderFindings([
        finding({ database: '\x1b[2J', object: 'a\u202eb', message: 'x\x07', remedy: 'DROP TABLE "a\nb"; --' }),
      ]),
    ).toBe(`ERROR replica-identity (source, \\u001b[2J, a\\u202eb)
  x\\u0007
    -- With characters that cannot be shown here; --json has it exactly:
    -- DROP TABLE "a
    -- b"; --`));

  test('are broken between words where a terminal would break them anywhere, but for what is to be pasted', () =>
    expect(renderFindings([finding({ message: 'word '.repeat(8).trim(), remedy: `SELECT ${'x'.repeat(30)};` })], 30))
      .toBe(`ERROR replica-identity (source, shop, public.log)
  word word word word word
  word word word
    SELECT ${'x'.repeat(30)};`));

  test('are counted', () => {
    expect(countFindings([])).toBe('nothing');
    expect(countFindings([finding({}), finding({}), finding({ severity: 'info' })])).toBe('2 errors, 1 info');
  });
});

const report = (database: string, other: Partial<DatabaseReport> = {}): DatabaseReport => ({
  ...{ database, method: 'replication', status: 'done', message: '3 tables were copied.' },
  ...{ tables: 3, rows: 303_000, bytes: 44_900_000, seconds: { copying: 10.5, stopping: 0.5 } },
  ...{ generations: 1, walAfterMarkBytes: 0, cutover: null, warnings: [] },
  ...other,
});

const CLUSTER = {
  databases: [
    report('数据库'),
    report('s\x1bx', {
      method: null,
      status: 'failed',
      tables: 0,
      rows: 0,
      bytes: 0,
      seconds: {},
      message: 'No\nroom.',
    }),
    report('big', { rows: 1, message: '', warnings: ['public.a is NOT VALID.', 'b\x1b'] }),
  ],
  roles: [
    { role: 'Ledger Clerk', status: 'created' as const, placeholder: false, message: '' },
    { role: 'app', status: 'failed' as const, placeholder: false, message: 'permission denied' },
  ],
};

describe('the report', () => {
  test('has a table of databases, one of roles, and the warnings', () =>
    expect(renderReport(CLUSTER)).toBe(`DATABASE  METHOD       STATUS  TABLES    ROWS     SIZE  TIME  MESSAGE
数据库    replication  done         3  303000  44.9 MB  11 s  3 tables were copied.
s\\u001bx               failed       0       0      0 B   0 s  No room.
big       replication  done         3       1  44.9 MB  11 s

ROLE          STATUS   MESSAGE
Ledger Clerk  created
app           failed   permission denied

Warnings:
  big: public.a is NOT VALID.
  big: b\\u001b`));

  test('has its messages below the table, whole, where they would make its lines too long', () =>
    expect(renderReport({ ...CLUSTER, roles: [] }, 70))
      .toBe(`DATABASE  METHOD       STATUS  TABLES    ROWS     SIZE  TIME
数据库    replication  done         3  303000  44.9 MB  11 s
s\\u001bx               failed       0       0      0 B   0 s
big       replication  done         3       1  44.9 MB  11 s
  数据库: 3 tables were copied.
  s\\u001bx: No room.

Warnings:
  big: public.a is NOT VALID.
  big: b\\u001b`));

  test('breaks what is longer than the terminal between words', () => {
    const long = { ...report('shop', { message: 'word '.repeat(12) }) };
    expect(
      renderReport({ databases: [long], roles: [] }, 40)
        .split('\n')
        .slice(2),
    ).toEqual(['  shop: word word word word word word', '    word word word word word word']);
  });

  test('of nothing is empty', () => expect(renderReport({ databases: [], roles: [] })).toBe(''));
});

describe('the answer for people', () => {
  test('to a migration that was refused has what it was refused for, and nothing that is as it should be', () => {
    const findings = [
      finding({}),
      finding({ severity: 'info', code: 'plan', message: 'Nothing is in the way.' }),
      finding({ severity: 'info', unknown: true, code: 'target-disk', message: 'Nobody tells.' }),
    ];
    const { text, answer } = answerOf.outcome('m', { status: 'failed', message: 'Refused.', report: null, findings });
    expect(text).toMatch(/replica-identity[^]*target-disk/);
    expect(text).not.toContain('plan');
    expect(answer.validation).toEqual(findings);
    expect(answerOf.validation('m', { ok: false, databases: [], findings }).text).toContain('INFO plan');
  });
});

describe('the answer for programs', () => {
  test('has the names as they are, and the same members whatever happened', () => {
    const members = ['databases', 'exitCode', 'id', 'message', 'roles', 'status', 'validation'];
    const failed = {
      status: 'failed',
      message: 'Mend it.',
      report: { id: 'm', ...CLUSTER, status: 'failed' },
    } as const;
    const { answer } = answerOf.outcome('m', { ...failed, findings: null });
    expect(answer).toEqual({ ...failed.report, message: 'Mend it.', exitCode: 1, validation: null });
    const refused = answerOf.outcome('m', { status: 'failed', message: 'No.', report: null, findings: [finding({})] });
    expect(refused.answer).toMatchObject({ validation: [finding({})], exitCode: 1, databases: [], roles: [] });
    const valid = answerOf.validation('m', { ok: true, databases: [], findings: [] });
    expect(valid.answer).toMatchObject({ status: 'valid', exitCode: 0, validation: [] });
    for (const each of [answer, refused.answer, valid.answer]) expect(Object.keys(each).sort()).toEqual(members);
  });
});

describe('the report file', () => {
  const directory = (): string => {
    const made = mkdtempSync(join(tmpdir(), 'pgtransit-report-'));
    own({ remove: [made] });
    return made;
  };

  test('is for its owner only, also where one stood that others could read', () => {
    const file = join(directory(), 'report.json');
    writeFileSync(file, 'before', { mode: 0o666 });
    writeReportFile(file, 'after');
    expect([readFileSync(file, 'utf8'), statSync(file).mode & 0o777]).toEqual(['after', 0o600]);
  });

  test('takes the place of a link, and does not write to where that leads', () => {
    const [here, elsewhere] = [directory(), join(directory(), 'elsewhere')];
    writeFileSync(elsewhere, 'before');
    symlinkSync(elsewhere, join(here, 'report.json'));
    writeReportFile(join(here, 'report.json'), 'after');
    expect(readFileSync(elsewhere, 'utf8')).toBe('before');
    expect(readdirSync(here)).toEqual(['report.json']);
  });

  test('that cannot be written is named, and nothing is left', () => {
    const here = directory();
    mkdirSync(join(here, 'taken'));
    expect(() => writeReportFile(join(here, 'taken'), 'x')).toThrow(
      `The report could not be written to ${join(here, 'taken')} (EISDIR).`,
    );
    expect(() => writeReportFile(join(here, 'no', 'file'), 'x')).toThrow(`${join(here, 'no', 'file')} (ENOENT).`);
    expect(readdirSync(here)).toEqual(['taken']);
  });
});
