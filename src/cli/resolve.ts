import { Argument } from 'commander';
import type { Command } from 'commander';
import type { ResolveAction } from '../contract.ts';
import { MESSAGE } from '../contract.ts';
import type { Secrets } from '../temporal/secrets.ts';
import type { OrderFlags } from './carry-out.ts';
import { carryOut, orderOptions } from './carry-out.ts';
import { sessionCommand } from './command-session.ts';

const HELP = `
retry: try the step again, after you have mended what it named. skip: leave it out (only where that is offered).
abort: undo everything of that database on the source, and fail it.

Example:
  pgtransit resolve retry pgtransit-0123456789ab --database shop -s "$OLD" -t "$NEW"`;

export const resolveCommand = (secrets: Secrets): Command =>
  orderOptions(
    sessionCommand('resolve', 'answer a migration that waits for you').addArgument(
      new Argument('<action>', 'what to do').choices(['retry', 'skip', 'abort']),
    ),
  )
    .option('--database <name>', 'only this one')
    .addHelpText('after', HELP)
    .action((action: ResolveAction, id: string | undefined, flags: OrderFlags & { database?: string }) =>
      carryOut(id, flags, secrets, async ({ client }, migration) => {
        const request = { action, ...(flags.database !== undefined && { database: flags.database }) };
        return client.workflow.getHandle(migration).executeUpdate<string, [typeof request]>(MESSAGE.resolve, {
          args: [request],
        });
      }),
    );
