import type { StreamSample, Verdict } from '../src/domain/readiness.ts';
import type { Migration } from '../src/domain/migration.ts';
import type { Plan } from '../src/domain/plan.ts';
import type { ConnInfo } from '../src/postgres/conninfo.ts';
import type { Endpoint, Session } from '../src/postgres/connection.ts';

/** What a condition of readiness is judged by. Opening a server that cannot be reached throws, in each one that needs it. */
export interface ReadinessContext {
  m: Migration;
  /** As of the plan. */
  sourceForTarget: ConnInfo;
  pgbouncer: Endpoint | null;
  /** @throws MigrationError why it could not be opened */
  source: () => Session;
  target: () => Session;
  /** Of the generations that have a slot. @throws MigrationError when the target could not be asked */
  names: () => Promise<string[]>;
  /** Two moments, some time apart. */
  samples: () => Promise<{ before: StreamSample; now: StreamSample; ofEarlierLook: boolean }>;
}

/** Names in one sentence, the others counted. */
export function someOf(names: readonly string[], most: number): string {
  const more = names.length - most;
  return more > 0 ? `${names.slice(0, most).join(', ')} and ${more} more` : names.join(', ');
}

export interface ReadinessCheck {
  /** Stable, kebab-case. */
  name: string;
  /** What is being looked at, for "While looking at …". */
  title: string;
  server: 'source' | 'target';
  /** Only for plans that ask for it. */
  when?: (plan: Plan) => boolean;
  run: (context: ReadinessContext) => Promise<Verdict>;
}
