import { WorkflowExecutionAlreadyStartedError } from '@temporalio/common';
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
import type { ResolveRequest } from '../src/contract.ts';
import { childWorkflowId } from '../src/contract.ts';
import { readFailure, toApplicationFailure } from '../src/domain/application-failure.ts';
import { MigrationError } from '../src/domain/failure.ts';
import { describeFinding } from '../src/domain/finding.ts';
import type { ClusterInspection, DatabaseInspection } from '../src/domain/migration.ts';
import type { Plan } from '../src/domain/plan.ts';
import type { ClusterReport, DatabaseReport, RoleReport } from '../src/domain/progress.ts';
import { capClusterReport } from '../src/domain/progress.ts';
import type { ClusterStatus } from './cluster-status.ts';
import type { Child } from './cluster-stop.ts';
import { ClusterStop } from './cluster-stop.ts';
import { reportEveryMs } from './database-status.ts';
import { clusterProgressQuery, databaseProgressSignal, DESCRIPTION, resolveSignal, resolveUpdate } from './messages.ts';
import type { DatabaseMigrationInput, migrateDatabase } from './migrate-database.ts';
import { refuse } from './refuse.ts';
import { resolveRequestProblem } from './requests.ts';

/** One run of `migrateCluster`: its children, and the messages that it answers. */
export class ClusterRun {
  readonly #id = workflowInfo().workflowId;
  readonly #status: ClusterStatus;
  readonly #children = new Map<string, Child>();
  readonly #stop: ClusterStop;
  #searchAttributes = false;
  #refused: DatabaseReport[] = [];
  /** What cancelled databases say of what could not be undone. */
  readonly #notUndone: string[] = [];

  constructor(status: ClusterStatus) {
    this.#status = status;
    this.#stop = new ClusterStop(status, this.#children);
    setHandler(clusterProgressQuery, () => status.progress(), { description: DESCRIPTION.progress });
    setHandler(databaseProgressSignal, (news) => status.hear(news), { description: DESCRIPTION.internal });
    setHandler(resolveUpdate, (request) => this.#resolve(request), {
      description: DESCRIPTION.resolve,
      validator: (request: ResolveRequest) => refuse(resolveRequestProblem(request) ?? this.#resolveProblem(request)),
    });
  }

  /** `refused`: databases that fail now, since a server does not let us into them. */
  begin(plan: Plan, databases: DatabaseInspection[], refused: DatabaseInspection[], searchAttributes: boolean): void {
    this.#searchAttributes = searchAttributes;
    this.#stop.begin(plan);
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
      const stopRequested = this.#stop.orderFor(database);
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
      await this.#stop.started(database, stopRequested);
      ended.push(this.#awaitReport(database, child));
    }
    // Wait for all, also when they are being cancelled: only then is everything undone.
    const outcomes = await Promise.allSettled(ended);
    if (CancellationScope.current().consideredCancelled && this.#notUndone.length > 0)
      throw toApplicationFailure(new MigrationError('NotUndone', this.#notUndone.join(' ').slice(0, 8000)));
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
      this.#status.databaseEnded(database, report.status === 'rolled-back' ? 'rolled-back' : 'done', report.message);
      return report;
    } catch (error) {
      if (isCancellation(error)) {
        const message = this.#status.cancelledAs(database);
        this.#status.databaseEnded(database, 'cancelled', message);
        this.#stop.ended(database, `${database} was cancelled.`);
        // Only this child was cancelled: the others go on, and the report says so.
        if (!CancellationScope.current().consideredCancelled) return bareReport(database, 'cancelled', message);
        throw error;
      }
      const { type, message } = readFailure(error);
      if (type === 'NotUndone') this.#notUndone.push(message);
      this.#status.databaseEnded(database, 'failed', message);
      this.#stop.ended(database, message);
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
  cutover: null,
  warnings: [],
});
