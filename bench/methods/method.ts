import type { LoadedSet } from '../data.ts';
import { serverCpuSeconds } from '../cpu.ts';
import type { Servers } from '../servers.ts';

/** What a method is given: two equalized servers and the database to bring over. */
export interface Task extends Servers {
  set: LoadedSet;
  /** For files of the method, reachable by the user that servers run as; deleted afterwards. */
  scratch: string;
  /** Lanes of pgtransit; null: as its plan has them by default. */
  copy: number | null;
  index: number | null;
}

export interface Outcome {
  seconds: number;
  /** Where the time went, in the order in which it did; seconds each. */
  phases: Readonly<Record<string, number>>;
  /** CPU seconds of both servers. */
  serverCpuSeconds: number;
  /** CPU seconds of pgtransit's own process; null where there is none. */
  nodeCpuSeconds: number | null;
  /** The most memory that pgtransit's process had; null where it was not its own process. */
  peakMemoryBytes: number | null;
}

export interface Method {
  /** For the table. */
  title: string;
  /** The rest finds an empty database on the target. */
  createsDatabase: boolean;
  /** Why it cannot run on this machine; null when it can. */
  missing(): string | null;
  /**
   * Measures from the start until the target is consistent, with all indexes and constraints. Then calls `check`, which
   * looks whether it is and throws when it is not. What is still running after that ends before this returns.
   */
  run(task: Task, check: () => Promise<void>): Promise<Outcome>;
}

/** Measures the time of consecutive parts of one whole, and what they cost the servers. */
export class Stopwatch {
  readonly #servers: Servers;
  readonly #cpuBefore: number;
  readonly #began = performance.now();
  readonly #phases: Record<string, number> = {};

  constructor(servers: Servers) {
    this.#servers = servers;
    this.#cpuBefore = cpuOf(servers);
  }

  async phase<T>(name: string, work: () => Promise<T>): Promise<T> {
    const began = performance.now();
    const result = await work();
    this.add(name, (performance.now() - began) / 1000);
    return result;
  }

  add(name: string, seconds: number): void {
    this.#phases[name] = (this.#phases[name] ?? 0) + seconds;
  }

  /** All until now. */
  get outcome(): Outcome {
    const seconds = (performance.now() - this.#began) / 1000;
    const spent = cpuOf(this.#servers) - this.#cpuBefore;
    return {
      seconds,
      phases: { ...this.#phases },
      serverCpuSeconds: spent,
      nodeCpuSeconds: null,
      peakMemoryBytes: null,
    };
  }
}

const cpuOf = ({ source, target }: Servers): number => serverCpuSeconds(source.pid) + serverCpuSeconds(target.pid);
