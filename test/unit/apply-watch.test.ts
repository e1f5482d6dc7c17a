import { expect, test } from 'vitest';
import { LIMITS } from '../../src/domain/limits.ts';
import { watchApply } from '../../src/postgres/apply-watch.ts';

/** One look every half second: '-' the worker is away, '+' it runs, 'c' it runs and has confirmed something. */
function watched(looks: string): string | null {
  const watch = watchApply();
  let answer: string | null = null;
  let confirmed = 0;
  for (const [n, look] of [...looks].entries()) {
    if (look === 'c') confirmed += 1;
    answer = watch({ at: n * 500, errors: null, idle: look === '-', confirmed: `0/${confirmed}` });
  }
  return answer;
}

const most = LIMITS.applyIdleMs / 500;

test('a worker that is away for long is failing, where the server counts no errors', () => {
  expect(watched('-'.repeat(most))).toBeNull();
  expect(watched('-'.repeat(most + 1))).not.toBeNull();
});

test('seeing it for a moment between its restarts does not acquit it', () => {
  expect(watched('-----------+'.repeat(5))).not.toBeNull();
});

test('one restart in the middle of a long transaction is no failure', () => {
  expect(watched(`-${'+'.repeat(200)}-----------${'+'.repeat(200)}-`)).toBeNull();
});

test('a worker that gets on between its restarts is not failing', () => {
  expect(watched('-----------c'.repeat(20))).toBeNull();
});

test('errors count while nothing is confirmed between them', () => {
  const watch = watchApply();
  const look = (errors: number, confirmed: string) => watch({ at: 0, errors, idle: true, confirmed });
  expect(look(5, '0/1')).toBeNull();
  expect(look(5 + LIMITS.applyErrorsToFail - 1, '0/1')).toBeNull();
  expect(look(5 + LIMITS.applyErrorsToFail, '0/2')).toBeNull();
  expect(look(5 + 2 * LIMITS.applyErrorsToFail, '0/2')).not.toBeNull();
});
