import type { Command } from 'commander';
import type { CompleteRequest, RollbackRequest } from '../contract.ts';
import { MESSAGE } from '../contract.ts';
import type { Secrets } from '../temporal/secrets.ts';
import type { OrderFlags } from './carry-out.ts';
import { carryOut, orderOptions } from './carry-out.ts';
import { sessionCommand } from './command-session.ts';
import { wholeNumber } from './whole-number.ts';

interface DecisionFlags extends OrderFlags {
  database?: string;
  reason?: string;
  deadline?: number;
}

const ROLLBACK_HELP = `
The target is made read-only and drained, the sequences are carried back, and writers are let in on the source. Lead the
clients back to it then.

Example:
  pgtransit rollback pgtransit-0123456789ab --reason "too slow"`;

const COMPLETE_HELP = `
The point of no return: the replication back to the source is dropped.

Example:
  pgtransit complete pgtransit-0123456789ab`;

export const rollbackCommand = (secrets: Secrets): Command =>
  decision(sessionCommand('rollback', 'while the source follows the target: go back to the source'))
    .option(
      '--deadline <seconds>',
      'when writers were kept out for so long, put the rollback back (default: as the plan says)',
      wholeNumber(1, 86_400),
    )
    .addHelpText('after', ROLLBACK_HELP)
    .action((id: string | undefined, flags: DecisionFlags) =>
      carryOut(id, flags, secrets, async ({ client }, migration) => {
        const request: RollbackRequest = {
          ...requestOf(flags),
          ...(flags.deadline !== undefined && { deadlineSeconds: flags.deadline }),
        };
        return client.workflow.getHandle(migration).executeUpdate<string, [RollbackRequest]>(MESSAGE.rollback, {
          args: [request],
        });
      }),
    );

export const completeCommand = (secrets: Secrets): Command =>
  decision(sessionCommand('complete', 'while the source follows the target: stay on the target'))
    .addHelpText('after', COMPLETE_HELP)
    .action((id: string | undefined, flags: DecisionFlags) =>
      carryOut(id, flags, secrets, async ({ client }, migration) =>
        client.workflow.getHandle(migration).executeUpdate<string, [CompleteRequest]>(MESSAGE.complete, {
          args: [requestOf(flags)],
        }),
      ),
    );

const decision = (command: Command): Command =>
  orderOptions(command).option('--database <name>', 'only this one').option('--reason <text>', 'for the history');

const requestOf = ({ database, reason }: DecisionFlags): CompleteRequest => ({
  ...(database !== undefined && { database }),
  ...(reason !== undefined && { reason }),
});
