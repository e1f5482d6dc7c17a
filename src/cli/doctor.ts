import process from 'node:process';
import type { Command } from 'commander';
import type { Secrets } from '../temporal/secrets.ts';
import type { SessionFlags } from './command-session.ts';
import { print, sessionCommand } from './command-session.ts';
import type { Check } from './doctor/check.ts';
import { checkMachine } from './doctor/machine.ts';
import { checkServers } from './doctor/servers.ts';
import { checkTemporal } from './doctor/temporal.ts';
import { plain } from './view/text.ts';
import { pad } from './view/width.ts';

const HELP = `
Looks at this machine, at Temporal, and at the servers that are given. It changes nothing, but starts pgtransit's own
Temporal server for as long as it looks, where no other one is configured. What a migration of certain databases needs is
told by \`pgtransit pg --validate\`.

Exit code: 1 when there is a problem.

Example:
  pgtransit doctor -s postgres://app@old.example/app -t postgres://app@new.example/app`;

interface DoctorFlags extends SessionFlags {
  source?: string;
  target?: string;
}

export const doctorCommand = (secrets: Secrets): Command =>
  sessionCommand('doctor', 'tell whether programs, Temporal and servers are as a migration needs them')
    .option('-s, --source <uri>', 'source server (else SOURCE_SERVICE_URI)')
    .option('-t, --target <uri>', 'target server (else TARGET_SERVICE_URI)')
    .addHelpText('after', HELP)
    .action(async (flags: DoctorFlags) => {
      const { checks: servers, versions } = await checkServers(flags, process.env, secrets);
      const found = [
        ...(await checkMachine(process.env, versions)),
        ...(await checkTemporal(process.env, flags.stateDir ?? null, secrets)),
        ...servers,
      ];
      const checks = secrets.maskAll(found);
      print(flags, checks.map(line).join('\n'), { checks });
      process.exitCode = checks.some(({ status }) => status === 'problem') ? 1 : 0;
    });

const line = ({ status, what, message, remedy }: Check): string =>
  [
    `${pad(status, 7)}  ${pad(what, 18)}  ${plain(message)}`,
    ...(remedy === null ? [] : [`${' '.repeat(29)}${plain(remedy)}`]),
  ].join('\n');
