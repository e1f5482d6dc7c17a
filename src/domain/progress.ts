import type { ResolveAction } from '../contract.ts';
import type { Fence, Method } from './plan.ts';
import type { Phase } from './phase.ts';
import type { Condition } from './readiness.ts';

export interface Amount {
  copied: number;
  total: number;
}

/** What the query `progress` answers for one database. Bytes are those of the heap on the source. */
export interface DatabaseProgress {
  database: string;
  method: Method | null;
  phase: Phase;
  /** A sentence when somebody must do something; else null. */
  attention: string | null;
  /** What the update `resolve` takes now; empty unless it is parked. */
  answers: ResolveAction[];
  /** The update that it waits for from whoever fences the source or leads the clients over; null: for none. */
  waitsFor: 'fenced' | 'switched' | null;
  /** Snapshots under which rows were copied so far: more than one when one was lost before the copy was complete. */
  generations: number;
  /** Bytes of WAL that the target has not confirmed; null while nothing streams. */
  lagBytes: number | null;
  /** Bytes of WAL that the slots keep on the source; null while there is no slot. */
  retainedBytes: number | null;
  /**
   * What a cutover needs, as last looked at while it streams, by the database's own workflow; its parent has those that
   * are not ok. null: nobody has looked yet.
   */
  readiness: Condition[] | null;
  tables: Amount;
  bytes: Amount;
  message: string;
}

export interface ClusterProgress {
  id: string;
  phase: Phase;
  attention: string | null;
  /** ISO 8601: when these numbers were measured. */
  measuredAt: string;
  databases: DatabaseProgress[];
}

export interface RoleReport {
  role: string;
  status: 'created' | 'exists' | 'failed';
  /** It was given a random password, since its own could not be read or was not wanted. */
  placeholder: boolean;
  message: string;
}

/** What was compared behind a fence, never more. Bytes are those of the heap on the source when it was copied. */
export interface Verified {
  tables: number;
  /** Of these, those that were compared while they streamed, and that neither side has written to since. */
  unchanged: number;
  ofTables: number;
  bytes: number;
}

/** How the replication of one database was ended. Times are ISO 8601. */
export interface CutoverReport {
  fence: Fence;
  /** Who put up an external fence. */
  fencedBy: string | null;
  /** In their order, from the gate on. */
  steps: { name: string; ms: number }[];
  /** With `verify: full`; null where nothing was compared behind the fence. */
  verified: Verified | null;
  /** When the target had everything and could be written to. */
  openedAt: string;
  /** When, and by whom, the clients were led to it; null where nobody was asked. */
  switchedAt: string | null;
  switchedBy: string | null;
}

export interface DatabaseReport {
  database: string;
  method: Method | null;
  status: 'done' | 'rolled-back' | 'failed' | 'cancelled';
  message: string;
  tables: number;
  rows: number;
  bytes: number;
  /** Seconds spent in each phase. */
  seconds: Partial<Record<Phase, number>>;
  /** As in the progress. */
  generations: number;
  /** WAL bytes that user transactions wrote on the source after the mark; null where there was no mark. */
  walAfterMarkBytes: number | null;
  /** null where nothing was replicated. */
  cutover: CutoverReport | null;
  warnings: string[];
}

export interface ClusterReport {
  id: string;
  status: 'done' | 'failed';
  roles: RoleReport[];
  databases: DatabaseReport[];
}

/** A failure of 2.3 MB was seen to hang its workflow for ever, so what may grow is capped long before. */
export const MAX_DATABASE_REPORT_BYTES = 256 * 1024;
export const MAX_REPORT_BYTES = 1024 * 1024;

const sizeOf = (value: unknown): number => JSON.stringify(value).length * 2;

/** Shortens the lists of a database's report, and says so, until it fits. */
export function capDatabaseReport(report: DatabaseReport, limit = MAX_DATABASE_REPORT_BYTES): DatabaseReport {
  if (sizeOf(report) <= limit) return report;
  const message = report.message.length > 4000 ? `${report.message.slice(0, 4000)} …` : report.message;
  const warnings: string[] = [];
  let room = limit - sizeOf({ ...report, message, warnings: [] }) - 200;
  for (const warning of report.warnings) {
    const short = warning.length > 1000 ? `${warning.slice(0, 1000)} …` : warning;
    if ((room -= sizeOf(short)) < 0) break;
    warnings.push(short);
  }
  const dropped = report.warnings.length - warnings.length;
  if (dropped > 0) warnings.push(`And ${dropped} more warnings.`);
  return { ...report, message, warnings };
}

/** Caps each database, then, where there are many, all of them evenly. */
export function capClusterReport(report: ClusterReport): ClusterReport {
  const each = Math.min(
    MAX_DATABASE_REPORT_BYTES,
    Math.floor(MAX_REPORT_BYTES / 2 / Math.max(1, report.databases.length)),
  );
  const databases = report.databases.map((database) => capDatabaseReport(database, each));
  const roles: RoleReport[] = [];
  let room = MAX_REPORT_BYTES / 2;
  for (const role of report.roles) {
    if ((room -= sizeOf(role)) < 0) break;
    roles.push(role);
  }
  const dropped = report.roles.length - roles.length;
  if (dropped > 0)
    roles.push({ role: '', status: 'exists', placeholder: false, message: `And ${dropped} more roles.` });
  return { ...report, roles, databases };
}

/** Begins the warning with the statements that let clients of the source in again. */
export const LOCKED_OUT = 'On the source nobody may connect to the database any more.';
