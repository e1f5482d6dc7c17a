import process from 'node:process';
import { createInterface } from 'node:readline/promises';
import type { Command } from 'commander';
import type { Secrets } from '../temporal/secrets.ts';
import type { OrderFlags } from './carry-out.ts';
import { carryOut, orderOptions } from './carry-out.ts';
import { sessionCommand } from './command-session.ts';
import { UsageError } from './usage-error.ts';

const WHAT =
  'Everything on the source is undone: slots, publications, the snapshot, a fence; the fence not once the target serves. ' +
  'Databases on the target are kept.';

const HELP = `
${WHAT}

Example:
  pgtransit cancel pgtransit-0123456789ab -s "$OLD" -t "$NEW"`;

export const cancelCommand = (secrets: Secrets): Command =>
  orderOptions(sessionCommand('cancel', 'end a migration and undo what it made on the source'))
    .option('--yes', 'do not ask')
    .addHelpText('after', HELP)
    .action((id: string | undefined, flags: OrderFlags & { yes?: boolean }) =>
      carryOut(
        id,
        flags,
        secrets,
        async ({ client }, migration) => {
          if (flags.yes !== true) await confirm(`Cancel ${migration}? ${WHAT}`);
          await client.workflow.getHandle(migration).cancel();
          return `${migration} is told to end, and to undo what it has made on the source.`;
        },
        'cancelled',
      ),
    );

async function confirm(question: string): Promise<void> {
  if (!process.stdin.isTTY) throw new UsageError('Nobody is there to be asked: say --yes.');
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  const answer = await terminal.question(`${question} [y/N] `);
  terminal.close();
  if (!/^y(es)?$/i.test(answer.trim())) throw new Error('Nothing was done.');
}
