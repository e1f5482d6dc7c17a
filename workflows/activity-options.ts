import type { ActivityOptions } from '@temporalio/workflow';
import { ActivityCancellationType } from '@temporalio/workflow';
import type { Activities } from '../activities/index.ts';
import { LIMITS } from '../src/domain/limits.ts';

/**
 * Each step is of one kind. Every step heartbeats, so a dead worker is noticed after `heartbeatTimeoutMs` whatever
 * `startToClose` says; that one only bounds a step that lives and hangs. Failures that waiting can mend are retried
 * without end: the pending activity shows attempt and reason. All others are non-retryable by type.
 */
type Kind = 'validation' | 'probe' | 'glance' | 'change' | 'lane' | 'keeper' | 'cleanup';

const patient = { initialInterval: '1 second', backoffCoefficient: 2, maximumInterval: '30 seconds' } as const;

const KINDS = {
  // The operator is looking at the terminal: say within a minute what is wrong. Each worker that dies uses up an attempt.
  validation: {
    startToCloseTimeout: '5 minutes',
    retry: { ...patient, maximumInterval: '5 seconds', maximumAttempts: 10 },
  },
  // Only a look for people; the next one comes by itself.
  probe: { startToCloseTimeout: '1 minute', retry: { maximumAttempts: 1 } },
  // … and nobody waits for it to notice that it is not wanted any more.
  glance: {
    startToCloseTimeout: '1 minute',
    retry: { maximumAttempts: 1 },
    cancellationType: ActivityCancellationType.TRY_CANCEL,
  },
  change: { startToCloseTimeout: '12 hours', retry: patient },
  // A lane or a wait: as long as the data or the operator takes.
  lane: { startToCloseTimeout: '365 days', retry: patient },
  // Changes nothing, so nobody waits for it to notice that it is cancelled.
  keeper: {
    startToCloseTimeout: '365 days',
    retry: patient,
    cancellationType: ActivityCancellationType.TRY_CANCEL,
  },
  // Ends some day, so that a server that is gone for good does not keep the workflow open for ever.
  cleanup: { startToCloseTimeout: '10 minutes', scheduleToCloseTimeout: '1 hour', retry: patient },
} as const satisfies Record<Kind, ActivityOptions>;

const KIND_OF: Record<keyof Activities, Kind> = {
  inspectCluster: 'validation',
  inspectDatabase: 'validation',
  recheck: 'change',
  migrateRoles: 'change',
  createDatabase: 'change',
  openSnapshot: 'change',
  keepSnapshot: 'keeper',
  closeGeneration: 'change',
  copySchema: 'change',
  planCopy: 'change',
  copyTables: 'lane',
  buildIndexes: 'lane',
  copyLargeObjects: 'lane',
  copySequences: 'change',
  verifyCopied: 'lane',
  verifyFenced: 'lane',
  verifyStreaming: 'keeper',
  sealCopy: 'change',
  restoreConstraints: 'lane',
  restoreForeignKeys: 'lane',
  refreshMaterializedViews: 'lane',
  createSubscription: 'change',
  waitForCatchUp: 'lane',
  watchReplication: 'keeper',
  waitForGate: 'lane',
  fence: 'change',
  unfence: 'cleanup',
  resumeClients: 'change',
  armReverse: 'change',
  dropReverse: 'cleanup',
  measureReverse: 'probe',
  watchReverse: 'keeper',
  fenceTarget: 'change',
  unfenceTarget: 'cleanup',
  drainBack: 'lane',
  closeBack: 'change',
  enableReverse: 'cleanup',
  settle: 'change',
  mark: 'change',
  waitForDrain: 'lane',
  disableSubscriptions: 'change',
  enableSubscriptions: 'cleanup',
  walAfterMark: 'change',
  compareSchemas: 'lane',
  catchUpLargeObjects: 'lane',
  carryOver: 'lane',
  dropReplication: 'change',
  measure: 'probe',
  readiness: 'glance',
  rehearseStop: 'lane',
  readReport: 'change',
  finish: 'change',
  undo: 'cleanup',
  clearAway: 'cleanup',
};

/** `atEnd`: of a migration that was cancelled or has failed. */
export function activityOptions(step: keyof Activities, lanesTaskQueue: string, atEnd: boolean): ActivityOptions {
  const kind = atEnd ? 'cleanup' : KIND_OF[step];
  return {
    heartbeatTimeout: LIMITS.heartbeatTimeoutMs,
    // Undoing starts only when nothing works any more.
    cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    ...KINDS[kind],
    ...(kind === 'lane' || kind === 'keeper' ? { taskQueue: lanesTaskQueue } : {}),
  };
}
