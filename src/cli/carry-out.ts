import process from 'node:process';
import { setTimeout as delay } from 'node:timers/promises';
import type { WorkflowHandle } from '@temporalio/client';
import type { Command } from 'commander';
import type { Logger } from 'pino';
import { MESSAGE } from '../contract.ts';
import { LIMITS } from '../domain/limits.ts';
import type { Phase } from '../domain/phase.ts';
import { hasEnded } from '../domain/phase.ts';
import type { ClusterProgress, DatabaseProgress } from '../domain/progress.ts';
import type { Secrets } from '../temporal/secrets.ts';
import type { TemporalSession } from '../temporal/session.ts';
import { isPolled, withQueries } from '../temporal/session.ts';
import { answerOf, deliver, INTERRUPTED } from './answer.ts';
import type { SessionFlags } from './command-session.ts';
import { withTemporal } from './command-session.ts';
import { follow } from './follow.ts';
import type { Outcome } from './outcome.ts';
import type { FoundMigration } from './migrations.ts';
import { selectMigration } from './migrations.ts';
import { releaseOrphanedSteps } from './orphans.ts';
import { readServers } from './pg-servers.ts';
import { servedHere, whileNotInterrupted } from './serve.ts';
import { progressOutput } from './view/output.ts';

export interface OrderFlags extends SessionFlags {
  source?: string;
  target?: string;
  sourceForTarget?: string;
}

/** A command that gives a migration an order, and then follows what comes of it. */
export const orderOptions = (command: Command): Command =>
  command
    .argument('[id]', 'workflow id of the migration (default: the only open one)')
    .option(
      '-s, --source <uri>',
      'source server, when no other process carries the migration out (else SOURCE_SERVICE_URI)',
    )
    .option('-t, --target <uri>', 'target server, likewise (else TARGET_SERVICE_URI)')
    .option('--source-for-target <uri>', 'how the target server reaches the source, as it was given to `pg`');

/**
 * Gives the order, then follows the migration until there is nothing more to wait for. A migration that no process
 * serves is served by this one where it is told the servers; else the order is kept, and this says so. `wanted`: the end
 * that the order is for.
 */
export function carryOut(
  id: string | undefined,
  flags: OrderFlags,
  secrets: Secrets,
  order: (session: TemporalSession, id: string) => Promise<string>,
  wanted: Outcome['status'] = 'done',
): Promise<void> {
  return withTemporal(flags, secrets, async (session, log) => {
    const migration = await selectOpen(session, id);
    const watch = async (signal: AbortSignal) => {
      process.stderr.write(`${await order(session, migration.id)}\n`);
      const handle = session.client.workflow.getHandle(migration.id);
      return follow(session.client, handle, { output: progressOutput(process.stderr), signal, settled });
    };
    const followed = await whileServed({ session, migration, flags, secrets, log }, watch);
    if (followed !== 'unserved') return finish(migration.id, flags, followed, wanted);
    const said = await withQueries(session, migration.taskQueue, () => order(session, migration.id));
    process.stdout.write(`${said}\n${UNSERVED}, so nothing happens yet. ${HOW}\n`);
    return 0;
  });
}

/**
 * Gives an order to databases in `phase`. They hear of it by signals: until then they seem to be where they are for good,
 * so this waits until each that is `concerned` has left the phase, or asks for something.
 */
export async function untilHeard(
  handle: WorkflowHandle,
  phase: Phase,
  concerned: (database: DatabaseProgress) => boolean,
  order: () => Promise<unknown>,
): Promise<void> {
  const inPhase = async () => {
    const { databases } = await handle.query<ClusterProgress>(MESSAGE.progress);
    return databases.filter((database) => database.phase === phase);
  };
  const asks = ({ answers }: DatabaseProgress) => answers.length > 0;
  const before = new Map((await inPhase()).filter(concerned).map((one) => [one.database, asks(one)]));
  const waits = (now: DatabaseProgress) =>
    before.has(now.database) && (!asks(now) || before.get(now.database) === true);
  await order();
  while ((await inPhase()).some(waits)) await delay(LIMITS.followMs);
}

/** @throws Error that says which there are, or that it has ended */
export async function selectOpen(session: TemporalSession, id: string | undefined): Promise<FoundMigration> {
  const migration = await selectMigration(session.client, id);
  if (migration.closedAt !== null) throw new Error(`${migration.id} has ended; \`pgtransit report\` shows how.`);
  return migration;
}

interface Served {
  session: TemporalSession;
  migration: FoundMigration;
  flags: OrderFlags;
  secrets: Secrets;
  log: Logger;
}

/** Does `work` while somebody carries out the migration's steps: others, or this process where it is told the servers. */
export async function whileServed<T>(
  { session, migration, flags, secrets, log }: Served,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T | 'interrupted' | 'unserved'> {
  const { id, taskQueue } = migration;
  if (await isPolled(session, taskQueue, 'steps')) return whileNotInterrupted(work);
  if (taskQueue !== id || !knowsServers(flags)) return 'unserved';
  const service = { session, taskQueue: id, servers: readServers(flags, process.env), log, secrets };
  await releaseOrphanedSteps(session.client, id);
  return servedHere(service, work);
}

export const UNSERVED = 'Nobody carries this migration out now';
export const HOW =
  'Run the `pgtransit pg` command that started it once more, or this command with -s and -t (or SOURCE_SERVICE_URI and ' +
  'TARGET_SERVICE_URI); one that was started for other workers needs one of those.';

const knowsServers = (flags: OrderFlags): boolean =>
  Boolean(flags.source ?? process.env['SOURCE_SERVICE_URI']) &&
  Boolean(flags.target ?? process.env['TARGET_SERVICE_URI']);

function finish(
  id: string,
  { json = false }: OrderFlags,
  followed: Awaited<ReturnType<typeof follow>> | 'interrupted',
  wanted: Outcome['status'],
): number {
  if (followed === 'interrupted') return INTERRUPTED;
  if (!('ended' in followed)) return deliver(answerOf.progress(id, followed.settled), { json, reportFile: null });
  const exitCode = deliver(answerOf.outcome(id, followed.ended), { json, reportFile: null });
  return followed.ended.status === wanted ? 0 : exitCode;
}

const settled = ({ databases }: ClusterProgress): boolean =>
  databases.some(({ phase }) => !hasEnded(phase)) &&
  databases.every(
    ({ phase, answers }) => hasEnded(phase) || answers.length > 0 || ['streaming', 'reversing'].includes(phase),
  );
