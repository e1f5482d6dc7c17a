import { describe, expect, test } from 'vitest';
import { LIMITS } from '../../src/domain/limits.ts';
import { planBatches } from '../../src/postgres/entry-batch.ts';

const MANY = LIMITS.schemaEntriesBeside;

const entries = (touches: (readonly number[] | null)[]) =>
  touches.map((ids, position) => ({ position, kind: 'TABLE', relation: null, touches: ids }));
const independent = (count: number, from = 0) => Array.from({ length: count }, (_, n) => [from + n]);
/** Without regard to transactions. */
const positions = (plan: { position: number }[][][][]) =>
  plan.map((batches) => batches.map((batch) => batch.flat().map(({ position }) => position)));

describe('the batches of a schema', () => {
  test('of what has nothing in common run at the same time, some at a time', () => {
    const plan = planBatches(entries(independent(4 * MANY)), new Set(), true);
    expect(plan).toHaveLength(1);
    expect(plan[0]?.map((batch) => batch.flat().length)).toEqual([MANY, MANY, MANY, MANY]);
  });

  test('have what touches the same together and in order, also where only a third one joins them', () => {
    const [one, other] = [1_000_001, 1_000_002];
    const list = entries([[one], ...independent(MANY), [other], [7_000_000, one, other], [other, 7_000_001]]);
    const [batches = []] = positions(planBatches(list, new Set(), true));
    const together = batches.find((batch) => batch.includes(0)) ?? [];
    for (const position of [0, MANY + 1, MANY + 2, MANY + 3]) expect(together).toContain(position);
    expect(together).toEqual([...together].sort((a, b) => a - b));
    expect(batches.flat().sort((a, b) => a - b)).toEqual(list.map(({ position }) => position));
  });

  test('are one after the other around what runs alone, and around what must not be run twice', () => {
    const list = entries([...independent(2 * MANY), null, null, ...independent(2 * MANY, 2 * MANY), [9_999]]);
    const plan = positions(planBatches(list, new Set([list.length - 1]), true));
    expect(plan.map((batches) => batches.length)).toEqual([2, 1, 2, 1]);
    expect(plan[1]).toEqual([[2 * MANY, 2 * MANY + 1]]);
    expect(plan[3]).toEqual([[list.length - 1]]);
  });

  test('are one after the other in order where there is one session, or too little to run at the same time', () => {
    const plan = positions(planBatches(entries(independent(LIMITS.schemaBatchEntries + 1)), new Set(), false));
    expect(plan.map((batches) => batches.map((batch) => batch.length))).toEqual([[LIMITS.schemaBatchEntries], [1]]);
    expect(positions(planBatches(entries([null, [1], null, [2], [3]]), new Set(), true))).toEqual([[[0, 1, 2, 3, 4]]]);
  });

  test('of validations are those of a table one after the other, each its own transaction, on as few sessions as there are', () => {
    const validation = (position: number, relation: number) => ({
      ...{ position, relation, kind: 'FK VALIDATION', touches: null },
    });
    const keys = entries([null, [1]]);
    const list = [...keys, validation(2, 7), validation(3, 8), validation(4, 8), validation(5, 9)];
    for (const beside of [true, false]) {
      const plan = planBatches(list, new Set(), beside);
      const numbers = plan.map((batches) =>
        batches.map((batch) => batch.map((t) => t.map(({ position }) => position))),
      );
      expect(numbers).toEqual([[[[0, 1]]], [[[3], [4]], [[2]], [[5]]]]);
    }
  });
});
