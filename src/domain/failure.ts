/**
 * Everything that can go wrong, as a closed set. `retry` says whether waiting can mend it by itself: then Temporal
 * tries again; everything else parks the migration or fails it, as the plan's `onError` says.
 */
export const FAILURES = {
  InvalidPlan: { retry: false, next: 'Correct the plan and start the workflow again.' },
  ValidationFailed: { retry: false, next: 'Mend each finding, then start the workflow again.' },
  InvalidRequest: { retry: false, next: '' },
  ConnectionFailed: { retry: true, next: 'Check that the server runs and can be reached from the worker.' },
  ServerBusy: { retry: true, next: 'Wait, or free the connection, lock or resource that it names.' },
  SlotBlocked: { retry: true, next: 'End or commit the transactions that it names; slot creation waits for them.' },
  WorkerOutdated: { retry: true, next: 'Upgrade this worker, or end it: a newer one takes the step over.' },
  AuthenticationFailed: { retry: false, next: "Correct the worker's credentials, then resolve with retry." },
  PrivilegeMissing: { retry: false, next: 'Grant the privilege, then resolve with retry.' },
  ProgramMissing: { retry: false, next: 'Install the program on every worker, then resolve with retry.' },
  WrongServer: {
    retry: false,
    next: 'Make every worker resolve the reference to the same server, then resolve with retry.',
  },
  TargetNotEmpty: { retry: false, next: 'Drop the database on the target or exclude it.' },
  AnotherMigration: { retry: false, next: 'Cancel the other migration, or clean up what it left.' },
  SnapshotLost: { retry: false, next: 'Start the migration again.' },
  SchemaFailed: { retry: false, next: 'Mend the object that it names, then resolve with retry.' },
  CopyFailed: { retry: false, next: 'Mend the table that it names, then resolve with retry.' },
  IndexFailed: { retry: false, next: 'Mend the index that it names, then resolve with retry.' },
  ConstraintFailed: { retry: false, next: 'Mend the rows or the constraint that it names, then resolve with retry.' },
  RowsDiffer: { retry: false, next: 'Compare the tables that it names before anything else is done.' },
  NotComplete: { retry: false, next: 'Resolve with retry; nothing was sealed.' },
  SlotLost: { retry: false, next: 'Start the migration again; the slot no longer has the changes.' },
  TooMuchWal: {
    retry: false,
    next: 'Give the source more room, or allow more in "retainedWal.maxBytes" of the plan; then start the migration again.',
  },
  ApplyFailed: { retry: false, next: 'Mend the row or table on the target that it names, then resolve with retry.' },
  DeadlinePassed: {
    retry: false,
    next: 'See what that step waits for, resolve with retry, then send stopReplication again, with more "deadlineSeconds" if needed.',
  },
  FenceFailed: {
    retry: false,
    next: 'Mend what it names, resolve with retry, then send stopReplication again.',
  },
  FenceBroken: {
    retry: false,
    next: 'Stop what writes to the source in spite of the fence, resolve with retry, then send stopReplication again.',
  },
  /** Another database's failure, which is where a person is asked. */
  PutBack: { retry: false, next: 'See what the database that it names says, then send stopReplication again.' },
  ReverseFailed: {
    retry: false,
    next: 'Mend it on the source, then resolve with retry; or send complete, and the source is let go.',
  },
  NotSwitched: { retry: false, next: 'Lead the clients to the target, then resolve with retry.' },
  ServerError: { retry: false, next: 'Read the message; mend the cause, then resolve with retry.' },
  NotUndone: {
    retry: false,
    next: 'Mend that, then `pgtransit cleanup` shows and drops what is left: a slot keeps WAL on its server.',
  },
  Aborted: { retry: false, next: 'Start the migration again when it is wanted.' },
  DatabasesFailed: { retry: false, next: 'Read the report in the details; start again for the databases that failed.' },
} as const satisfies Record<string, { retry: boolean; next: string }>;

export type FailureType = keyof typeof FAILURES;

/** Trying again cannot help: the snapshot or slot is gone, an operator has decided, or nothing was changed yet. */
const FINAL: readonly FailureType[] = [
  ...(['InvalidPlan', 'ValidationFailed', 'InvalidRequest'] as const),
  ...(['SnapshotLost', 'SlotLost', 'TooMuchWal', 'NotUndone', 'Aborted', 'DatabasesFailed'] as const),
];

/** Whether an operator is asked; docs/failures.md has what to answer. What is retried never gets that far. */
export const canPark = (type: FailureType): boolean => !FAILURES[type].retry && !FINAL.includes(type);

/** … and what nobody knows can be anything. */
export const endsAtOnce = (type: FailureType | 'Unknown'): boolean => type !== 'Unknown' && FINAL.includes(type);

export interface FailureDetails {
  /** Quoted as SQL quotes it; null when no single object is to blame. */
  object: string | null;
  sqlstate: string | null;
  next: string;
}

/** `message` is a sentence for a person. It holds no secret: say what happened, and to which object. */
export class MigrationError extends Error {
  override readonly name = 'MigrationError';
  readonly type: FailureType;
  readonly details: FailureDetails;

  constructor(type: FailureType, message: string, details: Partial<FailureDetails> = {}) {
    super(message);
    this.type = type;
    this.details = {
      object: details.object ?? null,
      sqlstate: details.sqlstate ?? null,
      next: details.next ?? FAILURES[type].next,
    };
  }

  get retryable(): boolean {
    return FAILURES[this.type].retry;
  }
}
