import type { Fence } from './domain/plan.ts';

/**
 * The wire: every name by which the outside, or a history written by an older worker, knows this program.
 * Changing one breaks running migrations.
 */

/** Workflows and short activities. `PGTRANSIT_TASK_QUEUE` and `--task-queue` replace it. */
export const DEFAULT_TASK_QUEUE = 'pgtransit';

/** Long activities (lanes, waits) have a queue of their own, so that they cannot starve a stop or a cleanup. */
export const lanesTaskQueue = (taskQueue: string): string => `${taskQueue}-lanes`;

export const WORKFLOW = {
  migrateCluster: 'migrateCluster',
  migrateDatabase: 'migrateDatabase',
  validateCluster: 'validateCluster',
} as const;

/** Child workflow id: `<parent id>/<database>`. */
export const childWorkflowId = (parentId: string, database: string): string => `${parentId}/${database}`;

export const MESSAGE = {
  /** Signal and update. */
  stopReplication: 'stopReplication',
  /** Update; between parent and child also a signal. */
  resolve: 'resolve',
  /** Update, on a database's own workflow. */
  rehearse: 'rehearse',
  /** Updates; between parent and child also signals. Somebody has fenced the source, or led the clients to the target. */
  fenced: 'fenced',
  switched: 'switched',
  /** Updates; between parent and child also signals. While the source follows the target: go back to it, or let it go. */
  rollback: 'rollback',
  complete: 'complete',
  /** Query. */
  progress: 'progress',
  /** Signal from a child to its parent. */
  databaseProgress: 'databaseProgress',
  /** Signals of databases that are cut over together: how far one has come, and what its parent decides of all. */
  cutoverVote: 'cutoverVote',
  cutoverDecision: 'cutoverDecision',
} as const;

/** All of type Keyword. */
export const SEARCH_ATTRIBUTE = {
  cluster: 'PgCluster',
  database: 'PgDatabase',
  phase: 'PgMigrationPhase',
  attention: 'PgAttention',
} as const;

/** Starts every name that pgtransit gives to something on a server. */
export const NAME_PREFIX = 'pgtransit_';

/** The bookkeeping schema on each target database while its migration runs. */
export const LEDGER_SCHEMA = 'pgtransit';

/** `control`: the steps that come one after the other. `probe`: who looks beside them, and changes nothing. */
export type SessionRole = 'holder' | 'keep' | 'copy' | 'index' | 'control' | 'probe';

/** Slot, publication and subscription of one generation share one name. `id`: the migration's 12 hex digits. */
export const generationName = (id: string, generation: number): string => `${generationPrefix(id)}${generation}`;

/** The same for the stream from the target back to the source. */
export const reverseName = (id: string): string => `${NAME_PREFIX}${id}_r0`;

/** Publication of one key range of a table that is copied in ranges. `number`: of all ranges of the migration. */
export const rangeName = (id: string, number: number): string => `${rangePrefix(id)}${number}`;

export const rangePrefix = (id: string): string => `${NAME_PREFIX}${id}_k`;

export const generationPrefix = (id: string): string => `${NAME_PREFIX}${id}_g`;

export const applicationName = (id: string, role: SessionRole): string => `${NAME_PREFIX}${id}_${role}`;

export interface StopRequest {
  databases?: string[];
  reason?: string;
  /** Instead of the plan's `stop.fence`. */
  fence?: Fence;
  /** Instead of the plan's `stop.deadlineSeconds`. */
  deadlineSeconds?: number;
  /** ISO 8601, with its offset from UTC: until then it streams. */
  notBefore?: string;
  /** All of them, or none: one that cannot be cut over puts all back. */
  together?: boolean;
}

/** What somebody says who did by hand, or by a tool, what pgtransit waits for. */
export interface Word {
  /** Of the parent's: all databases that wait for it. */
  database?: string;
  /** Who did it, for the report. */
  by: string;
}

export interface RollbackRequest {
  /** Of the parent's: all databases whose source follows. */
  database?: string;
  reason?: string;
  /** Instead of the plan's `stop.deadlineSeconds`. */
  deadlineSeconds?: number;
}

export interface CompleteRequest {
  database?: string;
  reason?: string;
}

export type ResolveAction = 'retry' | 'skip' | 'abort';

export interface ResolveRequest {
  database?: string;
  action: ResolveAction;
}
