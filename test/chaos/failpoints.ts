import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { own } from '../../lab/processes.ts';
import { workDir } from '../../lab/tools.ts';

/** What happens where a worker comes to a failpoint: see failpoints.mjs, which also says how they are named. */
export type Action = 'kill' | 'hold' | 'kill-child';

export interface Passed {
  /** ms since 1970 */
  at: number;
  pid: number;
  name: string;
  /** Something is other after it than before. */
  effect: boolean;
  workflow: string;
}

/** The failpoints of all workers of a campaign. */
export interface Failpoints {
  /** What a worker needs in its environment. */
  env: Record<string, string>;
  arm(name: string, action: Action): void;
  hasFired(name: string): boolean;
  /** Lets go of a worker that is held there. */
  release(name: string): void;
  /** Forgets what is armed, lets go of whoever is held, and begins a new list of what was passed. */
  reset(): void;
  passed(): Passed[];
}

/**
 * A worker that was killed is noticed after the heartbeat timeout, and rows are copied in pieces above a size: neither
 * may take half a minute or a gigabyte here.
 */
const LIMITS = {
  heartbeatTimeoutMs: 6_000,
  heartbeatEveryMs: 500,
  heartbeatThrottleMs: 1_000,
  splitTableBytes: 2 * 1024 * 1024,
  // What streams is compared again and again.
  comparedBytes: 1024 * 1024,
  comparePause: 1,
  compareAgainMs: 500,
  compareIdleMs: 500,
  chunkBytes: 1024 * 1024,
  tinyTableBytes: 128 * 1024,
} as const;

export function createFailpoints(): Failpoints {
  const dir = mkdtempSync(path.join(workDir(), 'failpoints-'));
  chmodSync(dir, 0o755);
  own({ remove: [dir] });
  for (const name of ['armed', 'fired']) mkdirSync(path.join(dir, name));
  const passed = path.join(dir, 'passed');
  writeFileSync(passed, '');
  const file = (state: 'armed' | 'fired', name: string): string => path.join(dir, state, encodeURIComponent(name));
  return {
    env: {
      NODE_OPTIONS: `--import=${pathToFileURL(path.join(import.meta.dirname, 'failpoints.mjs')).href}`,
      PGTRANSIT_FAILPOINTS: dir,
      PGTRANSIT_FAILPOINT_LIMITS: JSON.stringify(LIMITS),
    },
    arm: (name, action) => writeFileSync(file('armed', name), action),
    hasFired: (name) => existsSync(file('fired', name)),
    release: (name) => rmSync(file('fired', name), { force: true }),
    reset: () => {
      for (const state of ['armed', 'fired'])
        for (const name of readdirSync(path.join(dir, state))) rmSync(path.join(dir, state, name), { force: true });
      writeFileSync(passed, '');
    },
    passed: () =>
      readFileSync(passed, 'utf8')
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => JSON.parse(line) as Passed),
  };
}
