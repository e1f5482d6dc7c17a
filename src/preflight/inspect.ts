import type { Finding } from '../domain/finding.ts';
import { capFindings } from '../domain/finding.ts';
import { LIMITS } from '../domain/limits.ts';
import type { DatabaseInspection } from '../domain/migration.ts';
import type { Method, Plan } from '../domain/plan.ts';
import { MigrationError } from '../domain/failure.ts';
import type { Session } from '../postgres/connection.ts';
import type { Table } from '../postgres/scope.ts';
import { listTables } from '../postgres/scope.ts';
import { toMigrationError } from '../postgres/sqlstate.ts';
import type { Check, ClusterContext, DatabaseContext } from './check.ts';
import { clusterChecks, databaseChecks, runChecks } from './check.ts';
import { CHECKS } from './checks.ts';
import type { Decision } from './method.ts';
import { grantScripts } from './grants.ts';
import { lockedTables } from './locks.ts';
import { asked, decide } from './method.ts';
import { describePlan } from './summary.ts';

const deciding = CHECKS.filter((check) => check.decides === true);
const notDeciding = CHECKS.filter((check) => check.decides !== true);

/** What a plan is known to need before a database was looked at. */
const copies = ({ plan }: ClusterContext): boolean => plan.method !== 'schema-only';

/**
 * Checks both servers. With `method: auto` nothing is said about replication where no database can have it: each
 * database then says why it is a dump.
 */
export async function inspectServers(context: Omit<ClusterContext, 'replication'>): Promise<Finding[]> {
  const findings = await checkServers(context);
  return [...findings, ...grantScripts(findings, null)];
}

async function checkServers(context: Omit<ClusterContext, 'replication'>): Promise<Finding[]> {
  const { method } = context.plan;
  const wanted = { ...context, replication: method === 'auto' || method === 'replication' };
  if (method !== 'auto') return runChecks(clusterChecks(CHECKS, wanted.replication, copies(wanted)), wanted, null);
  const obstacles = await runChecks(clusterChecks(deciding, true, true), wanted, null);
  const replication = !obstacles.some(({ unknown }) => unknown !== true);
  return runChecks(clusterChecks(notDeciding, replication, true), { ...wanted, replication }, null);
}

type Uninspected = Omit<DatabaseContext, 'replication' | 'method' | 'tables' | 'rowsBudget'>;

/** Checks one database on both servers, and decides how it is migrated. */
export async function inspectOneDatabase(given: Uninspected): Promise<DatabaseInspection> {
  const { plan, database, source } = given;
  let tables: Table[];
  try {
    tables = await readScope(source, plan, database);
  } catch (error) {
    const findings = await whyUnreadable(source, database, error);
    const [method, reason] = [methodIfPossible(plan), 'Its tables cannot be listed.'];
    return { database, method, reason, tables: 0, bytes: 0, findings: capFindings(findings) };
  }
  const first: DatabaseContext = {
    ...given,
    tables,
    method: methodIfPossible(plan),
    replication: plan.method === 'auto' || plan.method === 'replication',
    rowsBudget: { ms: LIMITS.checkRowsMs },
  };
  const decision = await decideMethod(first);
  const { method, reason } = decision;
  const context = { ...first, method, replication: method === 'replication' };
  const checks = databaseChecks(plan.method === 'auto' ? notDeciding : CHECKS, method);
  const found = [...decision.findings, ...(await runChecks(checks, context, database))];
  const findings = [describePlan(context, reason, found), ...found, ...grantScripts(found, database)];
  const bytes = tables.reduce((sum, table) => sum + table.bytes, 0);
  return { database, method, reason, tables: tables.length, bytes, findings: capFindings(findings) };
}

async function decideMethod(context: DatabaseContext): Promise<Decision> {
  const { plan, database, tables } = context;
  if (plan.method !== 'auto') return asked(plan.method);
  const obstacles = [
    ...(await runChecks(clusterChecks(deciding, true, true), context, database)),
    ...(await runChecks(databaseChecks(deciding, 'replication'), context, database)),
  ];
  return decide(database, obstacles, tables, plan.stop.when);
}

const methodIfPossible = ({ method }: Plan): Method => (method === 'auto' ? 'replication' : method);

/** Without its tables, nothing else can be said about a database. */
async function whyUnreadable(source: Session, database: string, error: unknown): Promise<Finding[]> {
  if (!(error instanceof MigrationError) || error.type === 'InvalidPlan') throw error;
  const about = { severity: 'error', server: 'source', database } as const;
  if (error.type === 'ServerBusy') {
    const locked = await lockedTables(source);
    if (locked.length === 0) throw error;
    return locked.map((seen) => ({ ...about, code: 'locked-table', object: null, remedy: null, ...seen }));
  }
  if (error.retryable) throw error;
  const message = `This could not be checked. ${error.message}`;
  const remedy = 'Let the role of the source connection read the system catalogs.';
  return [{ ...about, code: 'tables-unreadable', unknown: true, object: null, message, remedy }];
}

/** What the plan migrates; an error names the server that it came from. */
export async function readScope(source: Session, plan: Plan, database: string): Promise<Table[]> {
  try {
    return await listTables(source, plan, database);
  } catch (error) {
    throw toMigrationError(error, { server: 'source', doing: `listing the tables of database "${database}"` });
  }
}

/** The checks whose answer may have changed since validation, and that cost a query or two. */
export async function recheckDatabase(context: DatabaseContext): Promise<Finding[]> {
  const cheap = (check: Check): boolean => check.cheap === true;
  const ofServers = clusterChecks(CHECKS.filter(cheap), context.replication, context.method !== 'schema-only');
  return [
    ...(await runChecks(ofServers, context, null)),
    ...(await runChecks(databaseChecks(CHECKS.filter(cheap), context.method), context, context.database)),
  ];
}
