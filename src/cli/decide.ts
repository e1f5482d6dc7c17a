import type { Command } from 'commander';
import type { CompleteRequest, RollbackRequest } from '../contract.ts';
import { MESSAGE } from '../contract.ts';
import type { DatabaseProgress } from '../domain/progress.ts';
import type { Secrets } from '../temporal/secrets.ts';
import type { TemporalSession } from '../temporal/session.ts';
import type { OrderFlags } from './carry-out.ts';
import { carryOut, orderOptions, untilHeard } from './carry-out.ts';
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
      carryOut(id, flags, secrets, (session, migration) => {
        const request: RollbackRequest = {
          ...requestOf(flags),
          ...(flags.deadline !== undefined && { deadlineSeconds: flags.deadline }),
        };
        return decide(session, migration, MESSAGE.rollback, request);
      }),
    );

export const completeCommand = (secrets: Secrets): Command =>
  decision(sessionCommand('complete', 'while the source follows the target: stay on the target'))
    .addHelpText('after', COMPLETE_HELP)
    .action((id: string | undefined, flags: DecisionFlags) =>
      carryOut(id, flags, secrets, (session, migration) =>
        decide(session, migration, MESSAGE.complete, requestOf(flags)),
      ),
    );

/** Answers what the migration says to it. */
async function decide(
  { client }: TemporalSession,
  id: string,
  update: string,
  request: RollbackRequest | CompleteRequest,
): Promise<string> {
  const handle = client.workflow.getHandle(id);
  const isConcerned = ({ database }: DatabaseProgress) => [undefined, database].includes(request.database);
  let said = '';
  await untilHeard(handle, 'reversing', isConcerned, async () => {
    said = await handle.executeUpdate<string, [typeof request]>(update, { args: [request] });
  });
  return said;
}

const decision = (command: Command): Command =>
  orderOptions(command).option('--database <name>', 'only this one').option('--reason <text>', 'for the history');

const requestOf = ({ database, reason }: DecisionFlags): CompleteRequest => ({
  ...(database !== undefined && { database }),
  ...(reason !== undefined && { reason }),
});
