import process from 'node:process';
import type { WorkflowHandle } from '@temporalio/client';
import type { Command } from 'commander';
import { DEFAULT_TASK_QUEUE, MESSAGE, WORKFLOW } from '../contract.ts';
import { hasEnded } from '../domain/phase.ts';
import type { Plan } from '../domain/plan.ts';
import type { ClusterProgress } from '../domain/progress.ts';
import { resolveReference } from '../postgres/conninfo.ts';
import type { Secrets } from '../temporal/secrets.ts';
import type { TemporalSession } from '../temporal/session.ts';
import { openTemporal } from '../temporal/session.ts';
import { stateDirectory } from '../temporal/state-dir.ts';
import type { Delivery, Validation } from './answer.ts';
import { answerOf, deliver, INTERRUPTED, withPlaceholders } from './answer.ts';
import { startInBackground } from './background.ts';
import type { Followed } from './follow.ts';
import { follow } from './follow.ts';
import { migrationIdentity } from './migration-identity.ts';
import { endOf, outcomeOf } from './outcome.ts';
import { pgFlags } from './pg-flags.ts';
import type { PgOptions } from './pg-options.ts';
import { processEnvironment, readPgOptions } from './pg-options.ts';
import { releaseOrphanedSteps } from './orphans.ts';
import { logOf } from './process-log.ts';
import { findMigration } from './migrations.ts';
import type { Service } from './serve.ts';
import { servedHere, whileNotInterrupted } from './serve.ts';
import { tellTroubles } from './tell-troubles.ts';
import { UsageError } from './usage-error.ts';
import { progressOutput } from './view/output.ts';
import { plain } from './view/text.ts';

export function pgCommand(secrets: Secrets): Command {
  return pgFlags().action(async (_flags: unknown, command: Command) => {
    process.exitCode = await pg(readPgOptions(command, process.env), secrets);
  });
}

const say = (sentence: string): boolean => process.stderr.write(`${sentence}\n`);

/** Starts the migration, or goes on with the one that the same command started before. Answers the exit code. */
async function pg(options: PgOptions, secrets: Secrets): Promise<number> {
  Object.assign(process.env, processEnvironment(options));
  const { plan, servers } = options;
  const info = (text: string) => resolveReference(text, process.env);
  const [source, target] = [info(servers.source.text), info(servers.target.text)];
  for (const conninfo of [source, target]) secrets.addConnInfo(conninfo);
  for (const note of options.notes) say(note);

  const id = migrationIdentity(source, target, plan);
  const stateDir = () => stateDirectory(process.env, options.stateDir);
  const log = logOf(options.debug, secrets, stateDir);
  const session = await openTemporal(process.env, stateDir);
  try {
    if (session.webUi !== null) say(`Temporal Web UI: ${session.webUi}`);
    if (options.detach) return await detach(session, id, options);
    const migration = {
      taskQueue: id,
      servers,
      options,
      session,
      log,
      secrets,
      placeholders: new Map<string, string>(),
    };
    return await (options.mode === 'validate' ? validate(migration) : migrate(migration));
  } finally {
    await session.close();
  }
}

interface PgMigration extends Service {
  options: PgOptions;
  placeholders: Map<string, string>;
}

async function validate(migration: PgMigration): Promise<number> {
  const { taskQueue: id, options, session } = migration;
  const workflowId = `${id}-validate`;
  const handle = await session.client.workflow.start(WORKFLOW.validateCluster, {
    workflowId,
    taskQueue: id,
    args: [options.plan],
    workflowIdConflictPolicy: 'TERMINATE_EXISTING',
  });
  const end = await servedHere(migration, async (signal) => {
    const over = new AbortController();
    const telling = tellTroubles(session.client, workflowId, AbortSignal.any([signal, over.signal]), say);
    return endOf<Validation>(handle).finally(() => {
      over.abort();
      return telling;
    });
  });
  if (end === 'interrupted') return INTERRUPTED;
  const answer =
    'result' in end ? answerOf.validation(workflowId, end.result) : answerOf.outcome(workflowId, end.failure);
  return deliver(answer, options);
}

async function migrate(migration: PgMigration): Promise<number> {
  const { taskQueue: id, options, session } = migration;
  const { handle, state, taskQueue } = await attachOrStart(session, id, options);
  if (state === 'finished') {
    say(`${id} is finished already. --again migrates once more.`);
    return report(migration, { ended: await outcomeOf(handle), progress: null });
  }
  say(state === 'started' ? `Migration ${id} is started.` : `Migration ${id} is under way; going on with it.`);
  const isOurs = taskQueue === id;
  const watch = async (signal: AbortSignal) => {
    // At once: a second Ctrl-C would end this process before it has said anything.
    signal.addEventListener('abort', () => say(isOurs ? interruptedText(id) : LEFT_TO_WORKERS), { once: true });
    if (state === 'attached') await goOn(session, handle, options);
    return follow(session.client, handle, {
      output: progressOutput(process.stderr),
      signal,
      settled: settled(options),
    });
  };
  // One that other workers carry out needs none here.
  try {
    return report(migration, isOurs ? await servedHere(migration, watch) : await whileNotInterrupted(watch));
  } catch (error) {
    sayPasswords(migration);
    throw error;
  }
}

function report(migration: PgMigration, followed: Followed): number {
  const { taskQueue: id, options, placeholders } = migration;
  const withPasswords = (delivery: Delivery): Delivery =>
    options.showPasswords ? withPlaceholders(delivery, placeholders) : delivery;
  if (followed === 'interrupted') {
    sayPasswords(migration);
    return INTERRUPTED;
  }
  const delivery = 'ended' in followed ? answerOf.outcome(id, followed.ended) : answerOf.progress(id, followed.settled);
  return deliver(withPasswords(delivery), options);
}

/** Where there will be no answer to show them in: the next process does not know them. */
function sayPasswords({ options, placeholders }: PgMigration): void {
  if (!options.showPasswords) return;
  for (const [role, password] of placeholders) say(`Password of role ${plain(role)}: ${password}`);
}

/** Every database has ended, waits for a person, or streams as far behind as was asked for. */
const settled =
  ({ stopReplication, maxReplicationLag }: PgOptions) =>
  ({ databases }: ClusterProgress): boolean =>
    databases.length > 0 &&
    databases.some(({ phase }) => !hasEnded(phase)) &&
    databases.every(({ phase, answers, lagBytes }) => {
      const streams = phase === 'streaming' && !stopReplication;
      const isNear = maxReplicationLag === null || (lagBytes !== null && lagBytes <= maxReplicationLag);
      return hasEnded(phase) || answers.length > 0 || (streams && isNear);
    });

async function attachOrStart(session: TemporalSession, id: string, options: PgOptions) {
  const found = await findMigration(session.client, id);
  const handle = session.client.workflow.getHandle(id);
  if (found?.status === 'RUNNING') return { handle, state: 'attached', taskQueue: found.taskQueue } as const;
  if (found?.status === 'COMPLETED' && !options.again)
    return { handle, state: 'finished', taskQueue: found.taskQueue } as const;
  await start(session, id, id, options.plan);
  return { handle, state: 'started', taskQueue: id } as const;
}

/** Two processes may start the same command at once: the second one attaches to what the first one started. */
async function start(session: TemporalSession, id: string, taskQueue: string, plan: Plan): Promise<void> {
  await session.client.workflow.start(WORKFLOW.migrateCluster, {
    workflowId: id,
    taskQueue,
    args: [plan],
    workflowIdConflictPolicy: 'USE_EXISTING',
  });
}

/** The same command again means: try again what waits for a person, and stop if that is asked for now. */
async function goOn(
  { client }: TemporalSession,
  handle: WorkflowHandle,
  { stopReplication }: PgOptions,
): Promise<void> {
  await releaseOrphanedSteps(client, handle.workflowId);
  const { databases } = await handle.query<ClusterProgress>(MESSAGE.progress);
  if (databases.some(({ answers }) => answers.includes('retry')))
    say(String(await handle.executeUpdate(MESSAGE.resolve, { args: [{ action: 'retry' }] })));
  if (stopReplication) await handle.signal(MESSAGE.stopReplication, { reason: 'pgtransit pg --stop-replication' });
}

async function detach(session: TemporalSession, id: string, options: PgOptions): Promise<number> {
  if (session.kind === 'local') {
    const log = startInBackground(options, stateDirectory(process.env, options.stateDir), id);
    say(`Migration ${id} goes on in the background; its output is in ${log}.`);
  } else {
    const taskQueue = process.env['PGTRANSIT_TASK_QUEUE'] || DEFAULT_TASK_QUEUE;
    await start(session, id, taskQueue, withReferences(options));
    say(`Migration ${id} is started on task queue ${taskQueue}, for the workers there.`);
  }
  say(`  pgtransit watch ${id}\n  pgtransit stop ${id}`);
  return 0;
}

/** The plan for other workers, in words that they understand too, and that hold no password. */
function withReferences({ plan, servers }: PgOptions): Plan {
  const { source, target, sourceForTarget } = servers;
  if ([source, target, sourceForTarget].some((server) => server !== null && server.reference === null))
    throw new UsageError(
      'A connection string holds a password, which would stand in the history for everybody to read. Set ' +
        'SOURCE_SERVICE_URI and TARGET_SERVICE_URI here and where the workers run, or leave out --detach.',
    );
  return {
    ...plan,
    source: source.reference ?? '',
    target: target.reference ?? '',
    sourceForTarget: sourceForTarget?.reference ?? null,
  };
}

const interruptedText = (id: string): string =>
  `Interrupted. The migration is not ended: while it is unfinished, the source keeps
its replication slots, which hold back WAL, and for 12 hours the session that
keeps its snapshot.
  to go on:  the same command again
  to undo:   pgtransit cancel ${id}, with the same -s and -t`;

const LEFT_TO_WORKERS = 'Interrupted. The migration goes on: other workers carry it out.';
