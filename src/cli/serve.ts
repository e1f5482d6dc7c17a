import process from 'node:process';
import type { Logger } from 'pino';
import { ensureSearchAttributes } from '../temporal/search-attributes.ts';
import type { Secrets } from '../temporal/secrets.ts';
import type { TemporalSession } from '../temporal/session.ts';
import { workflowBundlePath } from '../temporal/session.ts';
import { createDeps, runWorker } from '../worker.ts';
import { interruption } from './interruption.ts';
import type { PgServers } from './pg-servers.ts';

export interface Service {
  session: TemporalSession;
  /** Queue of the migration's workflows; nobody else knows what its `local:` references mean. */
  taskQueue: string;
  servers: PgServers;
  log: Logger;
  secrets: Secrets;
  /** Collects the passwords that steps in this process made up for roles, where somebody wants to see them. */
  placeholders?: Map<string, string>;
}

/** Runs `work` while this process carries out the steps of a migration. */
export async function servedHere<T>(
  { session, taskQueue, servers, log, secrets, placeholders }: Service,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T | 'interrupted'> {
  const { connection, target } = session;
  const attributes = await ensureSearchAttributes(connection, target.namespace);
  const deps = createDeps(process.env, { searchAttributes: attributes.registered, secrets });
  const local: Readonly<Record<string, string>> = {
    'local:source': servers.source.text,
    'local:target': servers.target.text,
    'local:source-for-target': (servers.sourceForTarget ?? servers.source).text,
  };
  const stop = new AbortController();
  const serving = runWorker({
    connection,
    namespace: target.namespace,
    taskQueue,
    // The queue has this one worker, which lives as long as its command.
    deployment: null,
    deps: {
      ...deps,
      endpoint: (reference, ...rest) => deps.endpoint(local[reference] ?? reference, ...rest),
      onPlaceholders(passwords) {
        for (const [role, password] of passwords) {
          secrets.add(password);
          placeholders?.set(role, password);
        }
      },
    },
    workflowBundlePath: workflowBundlePath(),
    signal: stop.signal,
    log,
  });
  try {
    return await Promise.race([whileNotInterrupted(work), serving.then(() => 'interrupted' as const)]);
  } finally {
    stop.abort();
    await serving.catch((error: unknown) => log.warn({ error }, 'The worker did not end well'));
  }
}

/** `interrupted`: by Ctrl-C or a signal; `work` is told, and not waited for. */
export async function whileNotInterrupted<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T | 'interrupted'> {
  const signal = interruption(() => process.stderr.write('Stopping. (Once more ends this process at once.)\n'));
  const interrupted = new Promise<'interrupted'>((resolve) =>
    signal.addEventListener('abort', () => resolve('interrupted'), { once: true }),
  );
  return Promise.race([work(signal), interrupted]);
}
