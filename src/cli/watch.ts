import type { Command } from 'commander';
import type { Secrets } from '../temporal/secrets.ts';
import { withQueries } from '../temporal/session.ts';
import { answerOf, deliver, INTERRUPTED } from './answer.ts';
import type { SessionFlags } from './command-session.ts';
import { sessionCommand, withTemporal } from './command-session.ts';
import { follow } from './follow.ts';
import { selectMigration } from './migrations.ts';
import { whileNotInterrupted } from './serve.ts';
import { progressOutput } from './view/output.ts';

const HELP = `
On a terminal it is a view that is redrawn; elsewhere a line for each change, and one a minute. The report follows at the
end, on stdout.

Examples:
  pgtransit watch
  pgtransit watch pgtransit-0123456789ab 2>> migration.log`;

export const watchCommand = (secrets: Secrets): Command =>
  sessionCommand('watch', 'show a migration until it ends; Ctrl-C ends the watching only')
    .argument('[id]', 'workflow id of the migration (default: the only open one)')
    .addHelpText('after', HELP)
    .action((id: string | undefined, flags: SessionFlags) =>
      withTemporal(flags, secrets, async (session) => {
        const migration = await selectMigration(session.client, id);
        const handle = session.client.workflow.getHandle(migration.id);
        const watch = (signal: AbortSignal) =>
          follow(session.client, handle, { output: progressOutput(process.stderr), signal, settled: () => false });
        const followed = await withQueries(session, migration.taskQueue, () => whileNotInterrupted(watch));
        if (followed === 'interrupted' || !('ended' in followed)) return INTERRUPTED;
        return deliver(answerOf.outcome(migration.id, followed.ended), { json: flags.json ?? false, reportFile: null });
      }),
    );
