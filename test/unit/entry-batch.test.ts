import { describe, expect, test } from 'vitest';
import { LIMITS } from '../../src/domain/limits.ts';
import { planBatches } from '../../src/postgres/entry-batch.ts';

const MANY = LIMITS.schemaEntriesBeside;

const entries = (touches: (readonly number[] | null)[]) => touches.map((ids, position) => ({ position, touches: ids }));
const independent = (count: number, from = 0) => Array.from({ length: count }, (_, n) => [from + n]);
const positions = (plan: { position: number }[][][]) =>
  plan.map((batches) => batches.map((batch) => batch.map(({ position }) => position)));

describe('the batches of a schema', () => {
  test('of what has nothing in common run at the same time, some at a time', () => {
    const plan = planBatches(entries(independent(4 * MANY)), new Set(), true);
    expect(plan).toHaveLength(1);
    expect(plan[0]?.map((batch) => batch.length)).toEqual([MANY, MANY, MANY, MANY]);
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
});
