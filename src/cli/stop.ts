import type { Command } from 'commander';
import { Option } from 'commander';
import { setTimeout as delay } from 'node:timers/promises';
import type { StopRequest } from '../contract.ts';
import { MESSAGE } from '../contract.ts';
import type { Fence } from '../domain/plan.ts';
import { FENCES } from '../domain/plan.ts';
import { LIMITS } from '../domain/limits.ts';
import type { Secrets } from '../temporal/secrets.ts';
import type { OrderFlags } from './carry-out.ts';
import { carryOut, orderOptions } from './carry-out.ts';
import { sessionCommand } from './command-session.ts';
import { collect, splitNames } from './name-list.ts';
import { wholeNumber } from './whole-number.ts';

const HELP = `
Stop the application's writes first, unless the migration was started with --fence. What is written to the source after
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
        await client.workflow.getHandle(migration).executeUpdate(MESSAGE.stopReplication, { args: [request] });
        // The children are told by signals; until they are, they still seem to stream for good.
        await delay(LIMITS.followMs);
        return `${migration} is told to stop.`;
      }),
    );
