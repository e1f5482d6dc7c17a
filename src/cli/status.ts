import type { Command } from 'commander';
import { MESSAGE } from '../contract.ts';
import { hasEnded } from '../domain/phase.ts';
import type { ClusterProgress, DatabaseProgress } from '../domain/progress.ts';
import { readinessLines } from '../domain/readiness.ts';
import type { Secrets } from '../temporal/secrets.ts';
import type { TemporalSession } from '../temporal/session.ts';
import { isPolled, withQueries } from '../temporal/session.ts';
import type { SessionFlags } from './command-session.ts';
import { print, sessionCommand, withTemporal } from './command-session.ts';
import type { FoundMigration } from './migrations.ts';
import { listMigrations, selectMigration } from './migrations.ts';
import { answerCommand } from './view/next-step.ts';
import { progressLine } from './view/summary.ts';
import { plain } from './view/text.ts';

const HELP = `
Numbers are as they were last told: every few seconds during the copy; while it streams, every 10 minutes times the
number of databases, and news at once.

Examples:
  pgtransit status
  pgtransit status pgtransit-0123456789ab --json`;

export const statusCommand = (secrets: Secrets): Command =>
  sessionCommand('status', 'how far a migration is; without an id, every open one')
    .argument('[id]', 'workflow id of the migration')
    .addHelpText('after', HELP)
    .action((id: string | undefined, flags: SessionFlags) =>
      withTemporal(flags, secrets, async (session) => {
        const { client } = session;
        const found = id === undefined ? await listMigrations(client, true) : [await selectMigration(client, id)];
        const all = await Promise.all(found.map((migration) => progressOf(session, migration)));
        const served = await Promise.all(found.map(({ taskQueue }) => isPolled(session, taskQueue, 'steps')));
        const texts = all.map((progress, index) => render(progress, served[index] ?? false));
        print(flags, texts.length === 0 ? 'No migration is open.' : texts.join('\n\n'), all);
        return 0;
      }),
    );

const progressOf = (session: TemporalSession, { id, taskQueue }: FoundMigration): Promise<ClusterProgress> =>
  withQueries(session, taskQueue, () => session.client.workflow.getHandle(id).query<ClusterProgress>(MESSAGE.progress));

const render = ({ id, phase, measuredAt, databases }: ClusterProgress, isServed: boolean): string =>
  [
    `${plain(id)}: ${phase}, as measured at ${measuredAt}`,
    ...databases.flatMap((database) => [
      `  ${progressLine(database)}`,
      ...answer(id, database),
      ...readiness(database),
    ]),
    // The servers replicate all the same.
    ...(isServed || hasEnded(phase)
      ? []
      : ['No worker carries out its steps now: nothing is decided, and no fence is lifted, until one is there.']),
  ].join('\n');

function answer(id: string, database: DatabaseProgress): string[] {
  const wanted = answerCommand(id, database);
  return wanted === null ? [] : [`    ${wanted.command}   ${wanted.others}`.trimEnd()];
}

/** The parent of the databases knows what is not ok. */
function readiness({ readiness: missing, attention }: DatabaseProgress): string[] {
  if (missing === null) return [];
  // What needs a person now may be newer than the last look.
  if (missing.length === 0) return attention === null ? ['    ready to be cut over'] : [];
  return readinessLines(missing).map((line) => `    ${line.replace(/\S.*/, plain)}`);
}
