/** Where a migration stands, in the order in which the phases follow each other. */
export const PHASES = [
  'validating',
  'preparing',
  'copying',
  'indexing',
  'subscribing',
  'catching-up',
  'streaming',
  'stopping',
  'finishing',
  'reversing',
  'rolling-back',
  'done',
  'rolled-back',
  'failed',
  'cancelled',
] as const;

export type Phase = (typeof PHASES)[number];

const ENDED: readonly Phase[] = ['done', 'rolled-back', 'failed', 'cancelled'];

export const hasEnded = (phase: Phase): boolean => ENDED.includes(phase);

/** The cluster is as far as its slowest database that still runs; an ended one counts only when all have ended. */
export function slowestPhase(phases: readonly Phase[]): Phase {
  const running = phases.filter((phase) => !hasEnded(phase));
  if (running.length > 0) return running.reduce((a, b) => (PHASES.indexOf(a) <= PHASES.indexOf(b) ? a : b));
  if (phases.includes('failed')) return 'failed';
  if (phases.includes('cancelled')) return 'cancelled';
  if (phases.includes('rolled-back')) return 'rolled-back';
  return phases.length > 0 ? 'done' : 'validating';
}
