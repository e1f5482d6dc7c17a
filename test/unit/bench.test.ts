import { describe, expect, it } from 'vitest';
import { differenceBetween } from '../../bench/check.ts';
import type { LoadedSet } from '../../bench/data.ts';
import { markdown } from '../../bench/markdown.ts';
import type { Run } from '../../bench/report.ts';
import { median, summarize, turn } from '../../bench/report.ts';

const set: LoadedSet = { name: 'onebig', tables: 1, indexes: 4, bytes: 2e9, biggest: 1 };

const run = (method: Run['method'], round: number, seconds: number | null, more: object = {}): Run => ({
  ...{ set: 'onebig', method, round, failure: seconds === null ? 'It broke.' : null },
  outcome:
    seconds === null
      ? null
      : { seconds, phases: {}, serverCpuSeconds: 1, nodeCpuSeconds: null, peakMemoryBytes: null, ...more },
});

describe('the benchmark', () => {
  it('takes the middle of the rounds, or the mean of the two in the middle', () => {
    expect(median([9, 1, 5])).toBe(5);
    expect(median([4, 1, 2, 8])).toBe(3);
    expect(median([7])).toBe(7);
  });

  it('begins each round with another method, and leaves none out', () => {
    const methods = ['a', 'b', 'c', 'd', 'e', 'f', 'g'];
    const rounds = [0, 1, 2].map((round) => turn(methods, round, 3));
    expect(new Set(rounds.map(([first]) => first)).size).toBe(3);
    for (const round of rounds) expect(round.toSorted()).toEqual(methods);
    expect(turn([], 0, 3)).toEqual([]);
  });

  it('compares medians with that of the reference', () => {
    const runs = [10, 12, 90].flatMap((seconds, round) => [
      run('pg_dump-tuned', round, seconds),
      run('engine', round, seconds / 2, { nodeCpuSeconds: 3, phases: { copy: seconds / 4 } }),
    ]);
    const [engine, reference] = summarize(set, runs, ['engine', 'pg_dump-tuned'], 'pg_dump-tuned');
    expect(reference).toMatchObject({ ratio: 1, seconds: { median: 12, least: 10, most: 90 } });
    expect(engine).toMatchObject({ ratio: 0.5, phases: { copy: 3 }, nodeCpuSecondsPerGb: 1.5 });
  });

  it('gives a method that failed once no speed, however fast it was otherwise', () => {
    const runs = [run('engine', 0, 0.1), run('engine', 1, null), run('pg_dump-tuned', 0, 10)];
    const summaries = summarize(set, runs, ['engine', 'pg_dump-tuned'], 'pg_dump-tuned');
    expect(summaries[0]).toMatchObject({ seconds: null, ratio: null, failure: 'It broke.' });
    const text = markdown(['A machine.'], [{ set, summaries }], (name) => name);
    expect(text).toMatch(/\| engine +\| +failed \|/);
    expect(text).toContain('Failed: engine: It broke.');
  });

  it('names a missing row, index or constraint of the target', () => {
    const source = ['table a: 3 rows', 'CREATE INDEX i', 'constraint c of a: CHECK (true)'];
    expect(differenceBetween(source, [...source])).toBeNull();
    expect(differenceBetween(source, source.slice(0, 2))).toContain('lacks: constraint c of a');
    const invalid = differenceBetween(source, [source[0] ?? '', 'CREATE INDEX i (not valid)', source[2] ?? '']);
    expect(invalid).toContain('lacks: CREATE INDEX i.');
    expect(invalid).toContain('instead: CREATE INDEX i (not valid).');
  });
});
