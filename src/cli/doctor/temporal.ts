import { DEFAULT_TASK_QUEUE } from '../../contract.ts';
import { LIMITS } from '../../domain/limits.ts';
import { messageOf, shortReason } from '../../temporal/connection.ts';
import { lookForSearchAttributes } from '../../temporal/search-attributes.ts';
import type { Secrets } from '../../temporal/secrets.ts';
import type { TemporalSession } from '../../temporal/session.ts';
import { isPolled, openTemporal } from '../../temporal/session.ts';
import { stateDirectory } from '../../temporal/state-dir.ts';
import { logOf } from '../process-log.ts';
import type { Check } from './check.ts';
import { check } from './check.ts';

export async function checkTemporal(
  env: NodeJS.ProcessEnv,
  stateDir: string | null,
  secrets: Secrets,
): Promise<Check[]> {
  let session: TemporalSession;
  try {
    const directory = () => stateDirectory(env, stateDir);
    logOf(env['PGTRANSIT_DEBUG'] === '1', secrets, directory);
    session = await openTemporal(env, directory);
  } catch (error) {
    return [check('Temporal', 'problem', messageOf(error))];
  }
  try {
    const { address, namespace } = session.target;
    const whose = session.kind === 'local' ? 'our own server' : 'as configured';
    return [
      check('Temporal', 'ok', `${address}, namespace ${namespace}, ${whose}`),
      await orUnknown('Retention', () => retention(session)),
      await orUnknown('Search attributes', () => searchAttributes(session)),
      await orUnknown('Workers', () => workers(session, env['PGTRANSIT_TASK_QUEUE'] || DEFAULT_TASK_QUEUE)),
    ];
  } finally {
    await session.close();
  }
}

async function orUnknown(what: string, work: () => Promise<Check>): Promise<Check> {
  try {
    return await work();
  } catch (error) {
    return check(what, 'unknown', `Temporal does not tell: ${shortReason(error)}.`);
  }
}

async function retention({ connection, target: { namespace } }: TemporalSession): Promise<Check> {
  const { config } = await connection.withDeadline(Date.now() + LIMITS.temporalConnectMs, () =>
    connection.workflowService.describeNamespace({ namespace }),
  );
  const days = Number(config?.workflowExecutionRetentionTtl?.seconds ?? 0) / (24 * 3600);
  const message = `A report is kept for ${Math.round(days * 10) / 10} days after the end of its migration.`;
  return days < LIMITS.retentionWorthHavingDays
    ? check(
        ...(['Retention', 'warning', message] as const),
        `To keep it longer: temporal operator namespace update --namespace ${namespace} --retention 30d; or write it to a file (--report-file).`,
      )
    : check('Retention', 'ok', message);
}

async function searchAttributes({ connection, target }: TemporalSession): Promise<Check> {
  const { registered, message } = await lookForSearchAttributes(connection, target.namespace);
  return check('Search attributes', registered ? 'ok' : 'warning', message);
}

async function workers(session: TemporalSession, taskQueue: string): Promise<Check> {
  if (await isPolled(session, taskQueue, 'steps')) return check('Workers', 'ok', `Some poll task queue ${taskQueue}.`);
  if (session.kind === 'local') return check('Workers', 'ok', '`pgtransit pg` carries a migration out by itself.');
  return check(
    ...(['Workers', 'warning', `Nobody polls task queue ${taskQueue}.`] as const),
    'Start `pgtransit worker` for migrations that are started there, or set PGTRANSIT_TASK_QUEUE; `pgtransit pg` needs none.',
  );
}
