import type { DataSetName, LoadedSet } from './data.ts';
import type { MethodName } from './methods/index.ts';
import type { Outcome } from './methods/method.ts';

/** One method, once. */
export interface Run {
  set: DataSetName;
  method: MethodName;
  round: number;
  /** null: it failed. */
  outcome: Outcome | null;
  /** Why it failed, or what was wrong with its result. */
  failure: string | null;
}

export interface Summary {
  method: MethodName;
  /** null when one of its runs failed: a method that does not work has no speed. */
  seconds: { median: number; least: number; most: number } | null;
  /** Of the medians; below 1 is faster than the reference. */
  ratio: number | null;
  serverCpuSeconds: number | null;
  phases: Record<string, number>;
  nodeCpuSeconds: number | null;
  nodeCpuSecondsPerGb: number | null;
  peakMemoryBytes: number | null;
  failure: string | null;
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length / 2;
  const [low = NaN, high = NaN] = [sorted[Math.ceil(middle) - 1], sorted[Math.floor(middle)]];
  return (low + high) / 2;
}

/** The methods of one round. Each begins a third (with three rounds) later, so that none is always after the same. */
export function turn<T>(methods: readonly T[], round: number, rounds: number): T[] {
  const start = Math.round((methods.length * round) / rounds) % Math.max(1, methods.length);
  return [...methods.slice(start), ...methods.slice(0, start)];
}

/** Medians of each method on one data set, in the order given. */
export function summarize(
  set: LoadedSet,
  runs: readonly Run[],
  methods: readonly MethodName[],
  reference: MethodName,
): Summary[] {
  const summaries = methods
    .map((method) =>
      summarizeMethod(
        set,
        method,
        runs.filter((run) => run.set === set.name && run.method === method),
      ),
    )
    .filter((summary) => summary !== null);
  const base = summaries.find(({ method }) => method === reference)?.seconds?.median;
  return summaries.map((summary) => ({
    ...summary,
    ratio: base === undefined || summary.seconds === null ? null : summary.seconds.median / base,
  }));
}

function summarizeMethod(set: LoadedSet, method: MethodName, runs: readonly Run[]): Summary | null {
  if (runs.length === 0) return null;
  const outcomes = runs.map(({ outcome }) => outcome).filter((outcome) => outcome !== null);
  const failure = runs.find((run) => run.failure !== null)?.failure ?? null;
  const seconds = outcomes.map((outcome) => outcome.seconds);
  const names = [...new Set(outcomes.flatMap(({ phases }) => Object.keys(phases)))];
  const cpu = medianOf(outcomes.map(({ nodeCpuSeconds }) => nodeCpuSeconds));
  return {
    method,
    seconds:
      failure === null ? { median: median(seconds), least: Math.min(...seconds), most: Math.max(...seconds) } : null,
    ratio: null,
    serverCpuSeconds: medianOf(outcomes.map((outcome) => outcome.serverCpuSeconds)),
    phases: Object.fromEntries(names.map((name) => [name, median(outcomes.map(({ phases }) => phases[name] ?? 0))])),
    nodeCpuSeconds: cpu,
    nodeCpuSecondsPerGb: cpu === null ? null : cpu / (set.bytes / 1e9),
    peakMemoryBytes: medianOf(outcomes.map(({ peakMemoryBytes }) => peakMemoryBytes)),
    failure,
  };
}

function medianOf(values: readonly (number | null)[]): number | null {
  const known = values.filter((value) => value !== null);
  return known.length === 0 ? null : median(known);
}
