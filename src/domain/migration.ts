import type { Finding } from './finding.ts';
import type { Method, Plan } from './plan.ts';

/** Which server this is, whatever its address: pinned in validation, compared by every activity after connecting. */
export interface ServerIdentity {
  /** `pg_control_system().system_identifier`; a bigint, hence text. */
  systemIdentifier: string;
  /** `server_version_num`, e.g. 170005. */
  version: number;
}

export interface PinnedServers {
  source: ServerIdentity;
  target: ServerIdentity;
}

/** What every step of one database's migration is given. */
export interface Migration {
  /** 12 hex digits: a hash of the child's workflow id and its first run id. */
  id: string;
  workflowId: string;
  database: string;
  /** Oid of the database on the source. */
  sourceOid: number;
  method: Method;
  plan: Plan;
  servers: PinnedServers;
}

export interface ClusterInspection {
  servers: PinnedServers;
  databases: { database: string; sourceOid: number; bytes: number }[];
  findings: Finding[];
  /** Whether the four search attributes may be written: an unknown one would stop the workflow for ever. */
  searchAttributes: boolean;
}

export interface DatabaseInspection {
  database: string;
  method: Method;
  /** Why this method, as a sentence. */
  reason: string;
  tables: number;
  bytes: number;
  findings: Finding[];
}

/** What a lane heartbeats, and returns when nothing is left. */
export interface LaneProgress {
  tables: number;
  rows: number;
  bytes: number;
  /** What it works on now; null between units. */
  current: string | null;
}

/** How far the copy is. */
export interface CopyProgress {
  tables: { copied: number; total: number };
  bytes: { copied: number; total: number };
  rows: number;
  indexes: { built: number; total: number };
}

/** A cheap look at a running migration, for people. Without the copy's part when the target could not be asked. */
export interface Measurement extends Partial<CopyProgress> {
  lagBytes: number | null;
  /** WAL that the slots keep on the source, in bytes. */
  retainedBytes: number | null;
  /** What needs a person, e.g. an apply error with relation and message; else null. */
  problem: string | null;
}

/**
 * What the server has counted of writes to large objects, and what tells that it has not begun to count anew since. Equal
 * ones mean that nothing was written, if every session from before has ended: a session tells what it has done at its
 * end, or some seconds later.
 */
export interface WriteCounters {
  writes: string;
  /** Changes with a restart, a crash and a reset of statistics. */
  epoch: string;
}
