import type { Finding, Severity } from '../domain/finding.ts';
import type { Method, Plan } from '../domain/plan.ts';
import type { ConnInfo, Reader } from '../postgres/conninfo.ts';
import type { Endpoint, Session } from '../postgres/connection.ts';
import type { Table } from '../postgres/scope.ts';
import { toMigrationError } from '../postgres/sqlstate.ts';

export interface SourceDatabase {
  database: string;
  sourceOid: number;
  bytes: number;
}

/** What a check about the servers is given. */
export interface ClusterContext {
  plan: Plan;
  source: Session;
  target: Session;
  /** Those that this run of the checks is about. */
  databases: readonly SourceDatabase[];
  /** Whether slots and subscriptions may be made. */
  replication: boolean;
  /** How the target server will reach the source. */
  sourceForTarget: ConnInfo;
  /** How the source server will reach the target, where it is to follow it; null where it is not. */
  targetForSource: { info: ConnInfo; reader: Reader } | null;
  /** The admin console of the PgBouncer that the plan names; null where it names none. */
  pgbouncer: Endpoint | null;
  /** Id of the migration that asks: what bears it is no leftover. Null in validation, which has none yet. */
  own: string | null;
}

/** What a check about one database is given. `source` is connected to it. */
export interface DatabaseContext extends ClusterContext {
  database: string;
  method: Method;
  /** What the plan migrates. */
  tables: readonly Table[];
  /** Whether the target has the database; then `target` is connected to it, else to another one. */
  targetExists: boolean;
  /** What is left of the time in which rows may be read, in ms; checks take from it. */
  rowsBudget: { ms: number };
}

/** What a check saw: one entry for each object that is not as it should be. */
export interface Seen {
  message: string;
  object?: string;
  remedy?: string;
  /** When it differs from the check's own. */
  severity?: Severity;
  /** It could not be told for this one object. */
  unknown?: true;
}

interface CheckOf<Context> {
  /** Stable, kebab-case. */
  code: string;
  severity: Severity;
  server: 'source' | 'target';
  /** `replication`: only where changes are to be followed; `copy`: only where rows are copied. */
  needs: 'replication' | 'copy' | 'any';
  /** For `needs: replication`: with `method: auto`, what it sees makes the method `dump` instead of an error. */
  decides?: true;
  /** Run again right before anything is changed, because what it looks at may have changed since. */
  cheap?: true;
  /** What is being done, for "While …". */
  title: string;
  run: (context: Context) => Promise<Seen[]>;
}

export type ClusterCheck = CheckOf<ClusterContext> & { level: 'cluster' };
export type DatabaseCheck = CheckOf<DatabaseContext> & { level: 'database' };
export type Check = ClusterCheck | DatabaseCheck;

/**
 * Runs the checks one after the other, because they share sessions. One that throws becomes one finding `unknown`.
 * @throws MigrationError `ConnectionFailed`: nothing after it could be checked either.
 */
export async function runChecks<Context>(
  checks: readonly CheckOf<Context>[],
  context: Context,
  database: string | null,
): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const check of checks) findings.push(...(await runCheck(check, context, database)));
  return findings;
}

async function runCheck<Context>(
  check: CheckOf<Context>,
  context: Context,
  database: string | null,
): Promise<Finding[]> {
  const { code, severity, server, title } = check;
  try {
    return (await check.run(context)).map((seen) => ({
      code,
      severity: seen.severity ?? severity,
      ...(seen.unknown === undefined ? {} : { unknown: seen.unknown }),
      server,
      database,
      object: seen.object ?? null,
      message: seen.message,
      remedy: seen.remedy ?? null,
    }));
  } catch (error) {
    const failure = toMigrationError(error, { server, doing: title });
    if (failure.type === 'ConnectionFailed') throw failure;
    const message = `This could not be checked. ${failure.message}`;
    const remedy = REMEDIES[failure.type] ?? null;
    return [{ code, severity, unknown: true, server, database, object: null, message, remedy }];
  }
}

const REMEDIES: Readonly<Record<string, string>> = {
  PrivilegeMissing: 'Grant the privilege that is named, or use a role that has it.',
  ServerBusy: 'Try again when the server is less busy.',
};

const isWanted = (needs: Check['needs'], replication: boolean, copies: boolean): boolean =>
  needs === 'any' || (needs === 'replication' ? replication : copies);

export const clusterChecks = (all: readonly Check[], replication: boolean, copies: boolean): ClusterCheck[] =>
  all.filter((check) => check.level === 'cluster').filter(({ needs }) => isWanted(needs, replication, copies));

export const databaseChecks = (all: readonly Check[], method: Method): DatabaseCheck[] =>
  all
    .filter((check) => check.level === 'database')
    .filter(({ needs }) => isWanted(needs, method === 'replication', method !== 'schema-only'));
