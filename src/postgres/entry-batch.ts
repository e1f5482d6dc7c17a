import { LIMITS } from '../domain/limits.ts';

interface Entry {
  position: number;
  touches: readonly number[] | null;
}

/**
 * Cuts entries into what comes one after the other; each of that is batches that may run at the same time, if `beside`
 * wants that at all. `alone`: positions of those that are a batch of their own.
 */
export function planBatches<E extends Entry>(
  entries: readonly E[],
  alone: ReadonlySet<number>,
  beside: boolean,
): E[][][] {
  const plan: E[][][] = [];
  let inOrder: E[] = [];
  const flush = () => {
    for (const part of partsOf(inOrder)) plan.push([part]);
    inOrder = [];
  };
  for (const run of runsOf(entries, ({ position, touches }) => touches !== null && !alone.has(position))) {
    // Few are not worth the transactions that they would take.
    if (beside && run.isFree && run.entries.length >= LIMITS.schemaEntriesBeside) {
      flush();
      plan.push(batchesOf(run.entries));
      continue;
    }
    for (const entry of run.entries) {
      if (!alone.has(entry.position)) inOrder.push(entry);
      else {
        flush();
        plan.push([[entry]]);
      }
    }
  }
  flush();
  return plan;
}

/** What goes into one transaction each. */
export const partsOf = <E>(entries: readonly E[]): E[][] =>
  Array.from({ length: Math.ceil(entries.length / LIMITS.schemaBatchEntries) }, (_, n) =>
    entries.slice(n * LIMITS.schemaBatchEntries, (n + 1) * LIMITS.schemaBatchEntries),
  );

function runsOf<E>(entries: readonly E[], isFree: (entry: E) => boolean): { isFree: boolean; entries: E[] }[] {
  const runs: { isFree: boolean; entries: E[] }[] = [];
  for (const entry of entries) {
    const last = runs.at(-1);
    if (last?.isFree === isFree(entry)) last.entries.push(entry);
    else runs.push({ isFree: isFree(entry), entries: [entry] });
  }
  return runs;
}

/** What touches the same comes into the same batch, in order. The longest come first, so that no session waits for one. */
function batchesOf<E extends Entry>(entries: readonly E[]): E[][] {
  const islands = new Islands();
  for (const { touches } of entries) islands.join(touches ?? []);
  const byIsland = new Map<number, E[]>();
  for (const entry of entries) {
    const island = islands.of(entry.touches?.[0] ?? 0);
    const others = byIsland.get(island);
    if (others === undefined) byIsland.set(island, [entry]);
    else others.push(entry);
  }
  const batches: E[][] = [];
  for (const island of [...byIsland.values()].sort((a, b) => b.length - a.length)) {
    const last = batches.at(-1);
    if (last !== undefined && last.length + island.length <= LIMITS.schemaEntriesBeside) last.push(...island);
    else batches.push([...island]);
  }
  return batches.map((batch) => batch.sort((a, b) => a.position - b.position));
}

/** Sets of ids that were named together, directly or by others. */
class Islands {
  readonly #above = new Map<number, number>();

  of(id: number): number {
    let root = id;
    for (let above = this.#above.get(root); above !== undefined; above = this.#above.get(root)) root = above;
    // So that the way is short the next time.
    if (root !== id) this.#above.set(id, root);
    return root;
  }

  join([first, ...others]: readonly number[]): void {
    if (first === undefined) return;
    for (const id of others) {
      const [root, other] = [this.of(first), this.of(id)];
      if (root !== other) this.#above.set(other, root);
    }
  }
}
