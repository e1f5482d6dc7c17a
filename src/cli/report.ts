import type { Command } from 'commander';
import type { Secrets } from '../temporal/secrets.ts';
import { answerOf, deliver } from './answer.ts';
import type { SessionFlags } from './command-session.ts';
import { sessionCommand, withTemporal } from './command-session.ts';
import { listMigrations, selectMigration } from './migrations.ts';
import { outcomeOf } from './outcome.ts';

const HELP = `
Examples:
  pgtransit report
  pgtransit report pgtransit-0123456789ab --report-file report.json`;

export const reportCommand = (secrets: Secrets): Command =>
  sessionCommand('report', 'what a migration that has ended did, database by database')
    .argument('[id]', 'workflow id of the migration (default: the one that ended last)')
    .option('--report-file <file>', 'write it as JSON into a file that only you can read')
    .addHelpText('after', HELP)
    .action((id: string | undefined, flags: SessionFlags & { reportFile?: string }) =>
      withTemporal(flags, secrets, async ({ client }) => {
        const found =
          id === undefined
            ? (await listMigrations(client, false)).find(({ closedAt }) => closedAt !== null)
            : await selectMigration(client, id);
        if (found === undefined) throw new Error('No migration has ended yet.');
        if (found.closedAt === null)
          throw new Error(`${found.id} has not ended; \`pgtransit status\` shows how far it is.`);
        const outcome = await outcomeOf(client.workflow.getHandle(found.id));
        const { json = false, reportFile = null } = flags;
        deliver(answerOf.outcome(found.id, outcome), { json, reportFile });
        return 0;
      }),
    );
