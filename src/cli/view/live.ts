import type { ClusterProgress, DatabaseProgress } from '../../domain/progress.ts';

/** What the pending steps of one database tell beyond the last measurement. */
export interface LiveDatabase {
  /** Bytes copied a second; null while nothing is being copied, or not known yet. */
  bytesPerSecond: number | null;
  /** Tables and indexes that are being worked on. */
  current: string[];
  /** What a waiting step waits for; empty when none waits. */
  waitingFor: string;
  /** Steps that failed and are tried again by themselves. `attempt`: the coming one. */
  retrying: { step: string; attempt: number; failure: string }[];
}

export type Live = ReadonlyMap<string, LiveDatabase>;

/** The migration itself among its databases: it looks at the servers, and makes the roles. No database is called so. */
export const WHOLE = '';

/** A pending step, as Temporal describes it. */
export interface PendingStep {
  id: string;
  /** The activity's name. */
  name: string;
  attempt: number;
  /** Why the last attempt failed, while it waits for the next one; else null. */
  failure: string | null;
  /** Its last heartbeat's; whoever runs the server may have written anything there. */
  details: Readonly<Record<string, unknown>>;
}

const numberIn = ({ details }: PendingStep, name: string): number | null => {
  const value = details[name];
  return typeof value === 'number' && Number.isFinite(value) ? value : null;
};

const textIn = ({ details }: PendingStep, name: string): string => {
  const value = details[name];
  return typeof value === 'string' ? value : '';
};

export interface Lane {
  id: string;
  bytes: number;
}

/** How much each lane has copied since it began. */
export const copyLanes = (steps: readonly PendingStep[]): Lane[] =>
  steps
    .filter(({ name }) => name === 'copyTables')
    .map((step) => ({ id: step.id, bytes: numberIn(step, 'bytes') ?? 0 }));

export const liveOf = (steps: readonly PendingStep[], bytesPerSecond: number | null): LiveDatabase => ({
  bytesPerSecond,
  current: [...new Set(steps.map(currentOf).filter((what) => what !== ''))],
  waitingFor: steps.map((step) => textIn(step, 'waitingFor')).find((what) => what !== '') ?? '',
  retrying: steps.flatMap(({ name, attempt, failure }) => (failure === null ? [] : [{ step: name, attempt, failure }])),
});

function currentOf(step: PendingStep): string {
  const current = textIn(step, 'current');
  if (step.name === 'verifyCopied' && current !== '') return `comparing ${current}`;
  if (step.name !== 'copyLargeObjects') return current;
  const total = numberIn(step, 'total') ?? 0;
  return total === 0 ? '' : `large objects (${numberIn(step, 'objects') ?? 0} of ${total})`;
}

/**
 * The lanes' own numbers are seconds old, the measurement minutes: the highest one counts, also of what was seen
 * `before`, since a lane that ends takes its numbers along.
 */
export function withLive(
  progress: ClusterProgress,
  steps: ReadonlyMap<string, readonly PendingStep[]>,
  before: ClusterProgress | null,
): ClusterProgress {
  const refresh = (database: DatabaseProgress): DatabaseProgress => {
    const known = before?.databases.find((other) => other.database === database.database);
    return refreshed(database, steps.get(database.database) ?? [], known?.phase === database.phase ? known : undefined);
  };
  return { ...progress, databases: progress.databases.map(refresh) };
}

function refreshed(
  database: DatabaseProgress,
  steps: readonly PendingStep[],
  before: DatabaseProgress | undefined,
): DatabaseProgress {
  const lanes = steps.filter(({ name }) => name === 'copyTables');
  const sum = (name: string) => lanes.reduce((total, lane) => total + (numberIn(lane, name) ?? 0), 0);
  const atLeast = ({ copied, total }: DatabaseProgress['bytes'], seen: number) => ({
    copied: Math.min(total, Math.max(copied, seen)),
    total,
  });
  const lags = steps.map((step) => numberIn(step, 'lagBytes') ?? numberIn(step, 'bytesLeft'));
  return {
    ...database,
    tables: atLeast(database.tables, Math.max(sum('tables'), before?.tables.copied ?? 0)),
    bytes: atLeast(database.bytes, Math.max(sum('bytes'), before?.bytes.copied ?? 0)),
    lagBytes: lags.find((lag) => lag !== null) ?? database.lagBytes,
  };
}
