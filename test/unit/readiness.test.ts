import { expect, test } from 'vitest';
import type { Condition, StreamSample } from '../../src/domain/readiness.ts';
import { isOk, judgeRate, problem, readinessLines, readinessTable } from '../../src/domain/readiness.ts';

const at = (atMs: number, flushed: number, confirmed: number): StreamSample => ({
  atMs,
  flushed,
  confirmed,
  applyErrors: 0,
});

test('a target that applies faster than the source writes is given a time', () => {
  const verdict = judgeRate(at(0, 100e6, 0), at(10_000, 110e6, 30e6), 0);
  expect(verdict.state).toBe('problem');
  expect(verdict.detail).toContain('caught up in about 40 s');
});

test('a target that applies slower than the source writes will never catch up', () => {
  const verdict = judgeRate(at(0, 100e6, 0), at(10_000, 200e6, 30e6), 0);
  expect(verdict.state).toBe('problem');
  expect(verdict.detail).toContain('never catch up at this rate');
});

test('a second of writes behind is caught up, and a moment that does not follow is unknown', () => {
  expect(judgeRate(at(0, 0, 0), at(10_000, 100e6, 91e6), 0).state).toBe('ok');
  expect(judgeRate(at(10_000, 0, 0), at(10_000, 1, 1), 0).state).toBe('unknown');
  expect(judgeRate(at(0, 10, 10), at(10_000, 5, 5), 0).state).toBe('unknown');
});

const CONDITIONS: Condition[] = [
  { name: 'lag', state: 'ok', detail: 'Fine.', next: null },
  { name: 'indexes', state: 'problem', detail: 'Invalid: a|b.', next: 'REINDEX INDEX a;' },
  { name: 'login-roles', state: 'unknown', detail: 'Hidden.', next: null },
];

test('what needs a person comes first, and what comes from outside is inert in the table', () => {
  const table = readinessTable(CONDITIONS).split('\n');
  expect(table[2]).toContain('**problem**');
  expect(table[2]).toContain('a\\|b');
  expect(table[3]).toContain('**unknown**');
  expect(readinessLines(CONDITIONS)).toEqual([
    'problem  indexes      Invalid: a|b.',
    '                      REINDEX INDEX a;',
    'unknown  login-roles  Hidden.',
    'ok       lag          Fine.',
  ]);
});

test('what is unknown is not ready', () => {
  expect(CONDITIONS.filter(isOk).map(({ state }) => state)).toEqual(['ok']);
});

test('a detail is cut to what fits a page', () => {
  expect(problem('x'.repeat(10_000)).detail.length).toBe(600);
});
