import { LIMITS } from '../domain/limits.ts';
import { FOREIGN_KEY_VALIDATION } from './stage.ts';

interface Entry {
  position: number;
  kind: string;
  relation: number | null;
  touches: readonly number[] | null;
}

/** Transactions one after the other, on one session; each is some entries. */
export type Batch<E> = E[][];

/**
 * Cuts entries into what comes one after the other; each of that is batches that may run at the same time, if `beside`
 * wants that at all. `alone`: positions of those that are a transaction of their own.
 */
export function planBatches<E extends Entry>(
  entries: readonly E[],
  alone: ReadonlySet<number>,
  beside: boolean,
): Batch<E>[][] {
  const plan: Batch<E>[][] = [];
  let inOrder: E[] = [];
  const flush = () => {
    for (const transaction of transactionsOf(inOrder)) plan.push([[transaction]]);
    inOrder = [];
  };
  const wayOf = ({ position, kind, touches }: E) => {
    if (kind === FOREIGN_KEY_VALIDATION) return 'by table';
    return touches !== null && !alone.has(position) ? 'beside' : 'in order';
  };
  for (const run of runsOf(entries, wayOf)) {
    if (run.way === 'by table') {
      flush();
      plan.push(byTable(run.entries));
      continue;
    }
    // Few are not worth the transactions that they would take.
    if (beside && run.way === 'beside' && run.entries.length >= LIMITS.schemaEntriesBeside) {
      flush();
      plan.push(batchesOf(run.entries).map(transactionsOf));
      continue;
    }
    for (const entry of run.entries) {
      if (!alone.has(entry.position)) inOrder.push(entry);
      else {
        flush();
        plan.push([[[entry]]]);
      }
    }
  }
  flush();
  return plan;
}

const transactionsOf = <E>(entries: readonly E[]): Batch<E> =>
  Array.from({ length: Math.ceil(entries.length / LIMITS.schemaBatchEntries) }, (_, n) =>
    entries.slice(n * LIMITS.schemaBatchEntries, (n + 1) * LIMITS.schemaBatchEntries),
  );

function runsOf<E, W>(entries: readonly E[], wayOf: (entry: E) => W): { way: W; entries: E[] }[] {
  const runs: { way: W; entries: E[] }[] = [];
  for (const entry of entries) {
    const way = wayOf(entry);
    const last = runs.at(-1);
    if (last?.way === way) last.entries.push(entry);
    else runs.push({ way, entries: [entry] });
  }
  return runs;
}

/** Two on one table would wait for each other; each takes long, so nothing is repeated with it. */
function byTable<E extends Entry>(entries: readonly E[]): Batch<E>[] {
  const batches = new Map<number | null, Batch<E>>();
  for (const entry of entries) {
    const others = batches.get(entry.relation);
    if (others === undefined) batches.set(entry.relation, [[entry]]);
    else others.push([entry]);
  }
  return longestFirst([...batches.values()]);
}

/** What touches the same comes into the same batch, in order. */
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
  for (const island of longestFirst([...byIsland.values()])) {
    const last = batches.at(-1);
    if (last !== undefined && last.length + island.length <= LIMITS.schemaEntriesBeside) last.push(...island);
    else batches.push([...island]);
  }
  return batches.map((batch) => batch.sort((a, b) => a.position - b.position));
}

/** So that no session waits for one at the end. */
const longestFirst = <T>(lists: readonly T[][]): T[][] => lists.toSorted((a, b) => b.length - a.length);

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
