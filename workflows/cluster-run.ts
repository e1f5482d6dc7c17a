import { WorkflowExecutionAlreadyStartedError } from '@temporalio/common';
import type { ChildWorkflowHandle } from '@temporalio/workflow';
import {
  ApplicationFailure,
  CancellationScope,
  ChildWorkflowFailure,
  condition,
  isCancellation,
  ParentClosePolicy,
  setHandler,
  startChild,
  workflowInfo,
} from '@temporalio/workflow';
import type { ResolveRequest, StopRequest } from '../src/contract.ts';
import { childWorkflowId } from '../src/contract.ts';
import { readFailure, toApplicationFailure } from '../src/domain/application-failure.ts';
import { MigrationError } from '../src/domain/failure.ts';
import { describeFinding } from '../src/domain/finding.ts';
import type { ClusterInspection, DatabaseInspection } from '../src/domain/migration.ts';
import type { Plan } from '../src/domain/plan.ts';
import type { ClusterReport, DatabaseReport, RoleReport } from '../src/domain/progress.ts';
import { capClusterReport } from '../src/domain/progress.ts';
import type { ClusterStatus } from './cluster-status.ts';
import { refuse } from './database-run.ts';
import { reportEveryMs } from './database-status.ts';
import {
  clusterProgressQuery,
  databaseProgressSignal,
  DESCRIPTION,
  resolveRequestProblem,
  resolveSignal,
  resolveUpdate,
  stopReplicationSignal,
  stopReplicationUpdate,
  stopRequestProblem,
} from './messages.ts';
import type { DatabaseMigrationInput, migrateDatabase } from './migrate-database.ts';

type Child = ChildWorkflowHandle<typeof migrateDatabase>;

/** One run of `migrateCluster`: its children, and the messages that it answers. */
export class ClusterRun {
  readonly #id = workflowInfo().workflowId;
  readonly #status: ClusterStatus;
  readonly #children = new Map<string, Child>();
  #stop: StopRequest | null = null;
  #searchAttributes = false;
  #refused: DatabaseReport[] = [];

  constructor(status: ClusterStatus) {
    this.#status = status;
    setHandler(clusterProgressQuery, () => status.progress(), { description: DESCRIPTION.progress });
    setHandler(databaseProgressSignal, (news) => status.hear(news), { description: DESCRIPTION.internal });
    setHandler(stopReplicationSignal, (request) => this.#stopReplication(request), {
      description: DESCRIPTION.stopReplication,
    });
    setHandler(
      stopReplicationUpdate,
      async (request) => {
        await this.#stopReplication(request);
        return status.phases();
      },
      {
        description: DESCRIPTION.stopReplication,
        validator: (request) => refuse(stopRequestProblem(request, status.databases())),
      },
    );
    setHandler(resolveUpdate, (request) => this.#resolve(request), {
      description: DESCRIPTION.resolve,
      validator: (request: ResolveRequest) => refuse(resolveRequestProblem(request) ?? this.#resolveProblem(request)),
    });
  }

  /** `refused`: databases that fail now, since a server does not let us into them. */
  begin(databases: DatabaseInspection[], refused: DatabaseInspection[], searchAttributes: boolean): void {
    this.#searchAttributes = searchAttributes;
    this.#status.begin([...databases, ...refused], searchAttributes);
    this.#refused = refused.map(({ database, findings }) =>
      bareReport(database, 'failed', findings.map(describeFinding).join(' ')),
    );
    for (const { database, message } of this.#refused) this.#status.databaseEnded(database, 'failed', message);
  }

  /** All databases, as many at once as the plan says; a permit is free again when its database streams or has ended. */
  async migrateAll(
    plan: Plan,
    servers: ClusterInspection['servers'],
    databases: (DatabaseInspection & { sourceOid: number })[],
  ): Promise<DatabaseReport[]> {
    const ended: Promise<DatabaseReport>[] = [];
    for (const { database, sourceOid, method } of databases) {
      await condition(() => this.#copying() < plan.parallelism.databases);
      const stopRequested = this.#stop !== null && this.#isStopped(database) ? this.#stop : null;
      const input: DatabaseMigrationInput = {
        plan,
        database,
        sourceOid,
        method,
        servers,
        searchAttributes: this.#searchAttributes,
        reportEveryMs: reportEveryMs(databases.length),
        stopRequested,
      };
      const child = await startChild<typeof migrateDatabase>('migrateDatabase', {
        workflowId: childWorkflowId(this.#id, database),
        args: [input],
        parentClosePolicy: ParentClosePolicy.REQUEST_CANCEL,
        staticSummary: `${database}: migrate by ${method}`,
      }).catch((error: unknown) => {
        throw error instanceof WorkflowExecutionAlreadyStartedError ? this.#orphan(database) : error;
      });
      this.#children.set(database, child);
      // A stop that came while the child was being started.
      if (stopRequested === null && this.#stop !== null && this.#isStopped(database)) await this.#forwardStop(database);
      ended.push(this.#awaitReport(database, child));
    }
    // Wait for all, also when they are being cancelled: only then is everything undone.
    const outcomes = await Promise.allSettled(ended);
    return outcomes.map((outcome) => {
      if (outcome.status === 'rejected') throw outcome.reason;
      return outcome.value;
    });
  }

  /** The report, or the failure that carries it when a database failed. */
  report(roles: RoleReport[], migrated: DatabaseReport[]): ClusterReport {
    const databases = [...migrated, ...this.#refused];
    const failed = databases.filter(({ status }) => status === 'failed');
    const report = capClusterReport({ id: this.#id, status: failed.length > 0 ? 'failed' : 'done', roles, databases });
    if (failed.length === 0) return report;
    const reasons = failed.slice(0, 5).map(({ database, message }) => `${database}: ${message}`);
    const more = failed.length > 5 ? ` And ${failed.length - 5} more.` : '';
    const sentence = `${failed.length} of ${databases.length} databases failed. ${reasons.join(' ').slice(0, 8000)}${more}`;
    throw toApplicationFailure(new MigrationError('DatabasesFailed', sentence), [report]);
  }

  async #awaitReport(database: string, child: Child): Promise<DatabaseReport> {
    try {
      const report = await child.result();
      this.#status.databaseEnded(database, 'done', report.message);
      return report;
    } catch (error) {
      if (isCancellation(error)) {
        this.#status.databaseEnded(database, 'cancelled', 'Cancelled.');
        // Only this child was cancelled: the others go on, and the report says so.
        if (!CancellationScope.current().consideredCancelled) return bareReport(database, 'cancelled', 'Cancelled.');
        throw error;
      }
      const { message } = readFailure(error);
      this.#status.databaseEnded(database, 'failed', message);
      return reportIn(error) ?? bareReport(database, 'failed', message);
    }
  }

  /** After a reset of this workflow to before it had started its children: they go on, and are no longer its own. */
  #orphan(database: string): Error {
    const child = childWorkflowId(this.#id, database);
    return toApplicationFailure(
      new MigrationError('AnotherMigration', `An earlier run of this workflow has started "${child}", which goes on.`, {
        object: database,
        next: 'Stop, answer or cancel that one directly; nothing of it was changed.',
      }),
    );
  }

  #copying(): number {
    return [...this.#children.keys()].filter((database) => this.#status.isCopying(database)).length;
  }

  #isStopped(database: string): boolean {
    return this.#stop?.databases === undefined || this.#stop.databases.includes(database);
  }

  /** Buffered when early: a child that starts later is told in its input. */
  async #stopReplication(request: StopRequest | undefined): Promise<void> {
    if (stopRequestProblem(request, null) !== null) return;
    this.#stop = mergeStops(this.#stop, request ?? {});
    await Promise.all(
      [...this.#children.keys()]
        .filter((database) => this.#isStopped(database))
        .map((database) => this.#forwardStop(database)),
    );
  }

  async #forwardStop(database: string): Promise<void> {
    if (this.#stop === null) return;
    // A child that has closed needs no stop; Temporal reports it as not found.
    await this.#children
      .get(database)
      ?.signal(stopReplicationSignal, this.#stop)
      .catch(() => undefined);
  }

  #resolveProblem({ database, action }: ResolveRequest): string | null {
    const known = this.#status.databases();
    if (known === null || this.#children.size === 0)
      return 'Nothing is parked: this migration is still being validated.';
    if (database !== undefined && !known.includes(database)) return `This migration has no database "${database}".`;
    const parked = this.#status.parked(database);
    if (parked.length === 0) return 'Nothing is parked: there is nothing to resolve.';
    if (parked.some(({ answers }) => answers.includes(action))) return null;
    const names = parked.map((progress) => progress.database).join(', ');
    return `The step at which ${names} is parked cannot be skipped; answer with retry or abort.`;
  }

  async #resolve(request: ResolveRequest): Promise<string> {
    const asked = this.#status.parked(request.database).filter(({ answers }) => answers.includes(request.action));
    for (const { database } of asked) {
      this.#status.answered(database);
      // One that has ended meanwhile needs no answer.
      await this.#children
        .get(database)
        ?.signal(resolveSignal, request)
        .catch(() => undefined);
    }
    return `${request.action} was passed on to ${asked.map(({ database }) => database).join(', ')}.`;
  }
}

/** Two requests ask for what either asks for. */
function mergeStops(before: StopRequest | null, request: StopRequest): StopRequest {
  if (before === null) return request;
  const all = before.databases === undefined || request.databases === undefined;
  const reason = request.reason ?? before.reason;
  const deadlineSeconds = request.deadlineSeconds ?? before.deadlineSeconds;
  return {
    ...(all ? {} : { databases: [...new Set([...(before.databases ?? []), ...(request.databases ?? [])])] }),
    ...(reason === undefined ? {} : { reason }),
    ...(deadlineSeconds === undefined ? {} : { deadlineSeconds }),
  };
}

function reportIn(error: unknown): DatabaseReport | null {
  const cause = error instanceof ChildWorkflowFailure ? error.cause : error;
  const report = cause instanceof ApplicationFailure ? cause.details?.[1] : undefined;
  return (report as DatabaseReport | undefined) ?? null;
}

const bareReport = (database: string, status: DatabaseReport['status'], message: string): DatabaseReport => ({
  database,
  method: null,
  status,
  message,
  tables: 0,
  rows: 0,
  bytes: 0,
  seconds: {},
  generations: 0,
  walAfterMarkBytes: null,
  warnings: [],
});
