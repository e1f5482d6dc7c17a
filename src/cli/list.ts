import type { Command } from 'commander';
import type { Secrets } from '../temporal/secrets.ts';
import type { SessionFlags } from './command-session.ts';
import { print, sessionCommand, withTemporal } from './command-session.ts';
import { listMigrations } from './migrations.ts';
import { table } from './view/text.ts';

const HELP = `
Example:
  pgtransit list --json`;

export const listCommand = (secrets: Secrets): Command =>
  sessionCommand('list', 'list the migrations, open and ended')
    .addHelpText('after', HELP)
    .action((flags: SessionFlags) =>
      withTemporal(flags, secrets, async ({ client }) => {
        const found = await listMigrations(client, false);
        const rows = found.map(({ id, status, startedAt, closedAt, taskQueue }) => [
          ...[id, status.toLowerCase().replaceAll('_', ' '), startedAt.toISOString(), closedAt?.toISOString() ?? ''],
          taskQueue,
        ]);
        const text = table(['MIGRATION', 'STATUS', 'STARTED', 'ENDED', 'TASK QUEUE'], rows);
        print(flags, found.length === 0 ? 'There are no migrations.' : text, found);
        return 0;
      }),
    );
