import type { Lane } from './live.ts';

/** Lanes tell their numbers every few seconds, so a rate over less than this would jump. */
const WINDOW_MS = 30_000;
/** … and over less than this it is no rate yet. */
const SHORTEST_MS = 6_000;
/** When nothing came for this long nothing is moving; before, the lanes have just not told it yet. */
const SILENT_MS = 10_000;

/** Bytes a second of one database, from what its lanes say they have copied since each of them began. */
export class RateMeter {
  readonly #lanes = new Map<string, number>();
  #samples: { at: number; moved: number }[] = [];

  /** Null while nothing is being copied, and in the first seconds. */
  add(lanes: readonly Lane[], now: number): number | null {
    if (lanes.length === 0) {
      this.#samples = [];
      this.#lanes.clear();
      return null;
    }
    const before = this.#samples.at(-1);
    let moved = before?.moved ?? 0;
    for (const { id, bytes } of lanes) {
      const known = this.#lanes.get(id) ?? 0;
      // A lane that began anew counts from zero again. What was moved before the first look says nothing of the rate.
      if (before !== undefined) moved += bytes >= known ? bytes - known : bytes;
      this.#lanes.set(id, bytes);
    }
    let last = before;
    if (last === undefined || last.moved !== moved || now - last.at >= SILENT_MS)
      this.#samples.push((last = { at: now, moved }));
    while ((this.#samples[1]?.at ?? now) <= now - WINDOW_MS) this.#samples.shift();
    const [first = last] = this.#samples;
    const elapsed = last.at - first.at;
    return elapsed < SHORTEST_MS ? null : ((moved - first.moved) * 1000) / elapsed;
  }
}
