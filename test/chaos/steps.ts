/** The steps of one database, in their order, and the phase in which each is. */
const PHASES = {
  validating: ['inspectCluster', 'inspectDatabase', 'migrateRoles'],
  preparing: ['recheck', 'createDatabase', 'openSnapshot', 'copySchema', 'planCopy'],
  copying: ['copyTables', 'buildIndexes', 'keepSnapshot'],
  indexing: ['copyLargeObjects', 'copySequences', 'verifyCopied', 'sealCopy'],
  subscribing: ['restoreConstraints', 'refreshMaterializedViews', 'createSubscription'],
  'catching-up': ['waitForCatchUp'],
  /** No step: whatever strikes here does so once changes stream. */
  streaming: ['streaming'],
  stopping: [
    'compareSchemas',
    'catchUpLargeObjects',
    'waitForGate',
    'fence',
    'mark',
    'waitForDrain',
    'disableSubscriptions',
    'verifyFenced',
    'carryOver',
    'walAfterMark',
    'armReverse',
  ],
  finishing: ['readReport', 'dropReplication', 'settle', 'finish'],
  'rolling-back': ['fenceTarget', 'drainBack', 'closeBack', 'dropReverse'],
} as const;

/** Steps that come only when something went wrong. */
const REMEDIES = {
  preparing: ['closeGeneration'],
  'catching-up': ['restoreForeignKeys'],
  stopping: ['unfence', 'enableSubscriptions'],
  'rolling-back': ['unfenceTarget', 'enableReverse'],
  undoing: ['undo', 'clearAway'],
} as const;

export type Remedy = (typeof REMEDIES)[keyof typeof REMEDIES][number];
export type Step = (typeof PHASES)[keyof typeof PHASES][number] | Remedy;

export const STREAMING = 'streaming' satisfies Step;

const ALL: readonly Step[] = Object.values(PHASES).flat();

const ONLY_REPLICATION: readonly Step[] = [
  'createSubscription',
  'waitForCatchUp',
  'streaming',
  'compareSchemas',
  'catchUpLargeObjects',
  'waitForGate',
  'fence',
  'mark',
  'waitForDrain',
  'disableSubscriptions',
  'verifyFenced',
  'carryOver',
  'walAfterMark',
  'dropReplication',
];

const ONLY_REVERSE: readonly Step[] = ['armReverse', 'settle', 'dropReverse'];
const ONLY_ROLLBACK: readonly Step[] = PHASES['rolling-back'].filter((step) => step !== 'dropReverse');

/** What is asked for once the source follows the target; null: it does not. */
export type After = 'rollback' | 'complete' | null;

export function stepsOf(method: 'replication' | 'dump', after: After): readonly Step[] {
  const never = [
    ...(method === 'replication' ? [] : ONLY_REPLICATION),
    ...(after === null ? ONLY_REVERSE : []),
    ...(after === 'rollback' ? [] : ONLY_ROLLBACK),
  ];
  return ALL.filter((step) => !never.includes(step));
}

export const phaseOf = (step: string): string =>
  [...Object.entries(PHASES), ...Object.entries(REMEDIES)].find(([, steps]) =>
    (steps as readonly string[]).includes(step),
  )?.[0] ?? 'other';

/** Until here a server that cannot be reached ends the migration, and not a person's answer. */
export const isBeforeAnyChange = (step: string): boolean => phaseOf(step) === 'validating' || step === 'recheck';

/** Once all changes stream these come no more, but for a remedy, which nobody waits for. */
export const isBeforeStreaming = (step: string): boolean => ALL.indexOf(step as Step) < ALL.indexOf(STREAMING);
