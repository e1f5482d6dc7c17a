import type { Command } from 'commander';
import { MESSAGE } from '../contract.ts';
import type { Word } from '../contract.ts';
import type { Secrets } from '../temporal/secrets.ts';
import type { OrderFlags } from './carry-out.ts';
import { carryOut, orderOptions } from './carry-out.ts';
import { sessionCommand } from './command-session.ts';

interface WordFlags extends OrderFlags {
  by: string;
  database?: string;
}

const help = (name: string): string => `
Refused when no database waits for it. What they wait for is in \`pgtransit status\`.

Example:
  pgtransit ${name} pgtransit-0123456789ab --by "haproxy job 42"`;

/** What somebody says who has done what a cutover waits for. */
const wordCommand = (name: 'fenced' | 'switched', description: string, secrets: Secrets): Command =>
  orderOptions(sessionCommand(name, description))
    .requiredOption('--by <who>', 'who did it, for the report')
    .option('--database <name>', 'only this one')
    .addHelpText('after', help(name))
    .action((id: string | undefined, { by, database, ...flags }: WordFlags) =>
      carryOut(id, flags, secrets, async ({ client }, migration) =>
        client.workflow.getHandle(migration).executeUpdate<string, [Word]>(MESSAGE[name], {
          args: [{ by, ...(database !== undefined && { database }) }],
        }),
      ),
    );

export const fencedCommand = (secrets: Secrets): Command =>
  wordCommand('fenced', 'say that writers are kept out of the source, for a stop with the fence external', secrets);

export const switchedCommand = (secrets: Secrets): Command =>
  wordCommand('switched', 'say that the clients are led to the target', secrets);
