import type { LiveDatabase } from '../../src/cli/view/live.ts';
import type { ClusterProgress, DatabaseProgress } from '../../src/domain/progress.ts';

/** A database in the middle of its copy, but for what is said otherwise. */
export const database = (name: string, other: Partial<DatabaseProgress> = {}): DatabaseProgress => ({
  database: name,
  method: 'replication',
  phase: 'copying',
  attention: null,
  answers: [],
  waitsFor: null,
  generations: 1,
  lagBytes: null,
  retainedBytes: null,
  readiness: null,
  tables: { copied: 3, total: 7 },
  bytes: { copied: 1_200_000_000, total: 4_000_000_000 },
  message: 'Copying 7 tables.',
  ...other,
});

export const MEASURED_AT = new Date('2026-03-04T05:06:07.000Z');

export const cluster = (databases: DatabaseProgress[], other: Partial<ClusterProgress> = {}): ClusterProgress => ({
  id: 'pgtransit-0123456789ab',
  phase: 'copying',
  attention: null,
  measuredAt: MEASURED_AT.toISOString(),
  databases,
  ...other,
});

export const live = (other: Partial<LiveDatabase> = {}): LiveDatabase => ({
  bytesPerSecond: null,
  current: [],
  waitingFor: '',
  retrying: [],
  ...other,
});
