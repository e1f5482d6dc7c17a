import type { Command } from 'commander';
import { Option } from 'commander';
import type { StopRequest } from '../contract.ts';
import { MESSAGE } from '../contract.ts';
import type { Fence } from '../domain/plan.ts';
import { FENCES } from '../domain/plan.ts';
import type { ClusterProgress, DatabaseProgress } from '../domain/progress.ts';
import type { Secrets } from '../temporal/secrets.ts';
import type { OrderFlags } from './carry-out.ts';
import { carryOut, orderOptions, untilHeard } from './carry-out.ts';
import { sessionCommand } from './command-session.ts';
import { collect, splitNames } from './name-list.ts';
import { wholeNumber } from './whole-number.ts';

const HELP = `
Stop the application's writes first, unless a fence keeps them out (--fence). What is written to the source after
the end of the replication stays there; the report says how much it was.

Example:
  pgtransit stop pgtransit-0123456789ab --databases shop`;

interface StopFlags extends OrderFlags {
  databases?: string[];
  reason?: string;
  fence?: Fence;
  deadline?: number;
  notBefore?: string;
  together?: boolean;
}

export const stopCommand = (secrets: Secrets): Command =>
  orderOptions(sessionCommand('stop', 'cut over: wait until the target has everything, then end the replication'))
    .option('--databases <names>', 'only these, separated by commas', collect(splitNames, '--databases'))
    .option('--reason <text>', 'for the history')
    .addOption(new Option('--fence <kind>', "instead of the plan's").choices(FENCES))
    .option(
      '--deadline <seconds>',
      'with a fence: when it has kept writers out for so long, put the cutover back (default: as the plan says)',
      wholeNumber(1, 86_400),
    )
    .option('--not-before <time>', 'wait until then, e.g. 2030-01-31T02:00:00Z')
    .option('--together', 'all of them or none: one that cannot be cut over puts all back')
    .addHelpText('after', HELP)
    .action((id: string | undefined, flags: StopFlags) =>
      carryOut(id, flags, secrets, async ({ client }, migration) => {
        const { databases, reason, fence, deadline, notBefore, together } = flags;
        const request: StopRequest = {
          ...(databases && { databases }),
          ...(reason && { reason }),
          ...(fence && { fence }),
          ...(deadline && { deadlineSeconds: deadline }),
          ...(notBefore && { notBefore }),
          ...(together && { together }),
        };
        const handle = client.workflow.getHandle(migration);
        const isNamed = ({ database }: DatabaseProgress) => databases?.includes(database) ?? true;
        const streams = ({ phase, answers }: DatabaseProgress) => phase === 'streaming' && answers.length === 0;
        const { databases: all } = await handle.query<ClusterProgress>(MESSAGE.progress);
        // Else it waits: for the time, for an answer, or for the others.
        const isAtOnce = notBefore === undefined && (together !== true || all.filter(isNamed).every(streams));
        const isConcerned = (database: DatabaseProgress) => isAtOnce && isNamed(database) && streams(database);
        await untilHeard(handle, 'streaming', isConcerned, () =>
          handle.executeUpdate(MESSAGE.stopReplication, { args: [request] }),
        );
        return `${migration} is told to stop.`;
      }),
    );
