import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Command } from 'commander';
import { packageRoot } from '../package-root.ts';
import type { Secrets } from '../temporal/secrets.ts';
import { cancelCommand } from './cancel.ts';
import { cleanupCommand } from './cleanup.ts';
import { completionCommand } from './completion.ts';
import { completeCommand, rollbackCommand } from './decide.ts';
import { rehearseCommand } from './rehearse.ts';
import { doctorCommand } from './doctor.ts';
import { listCommand } from './list.ts';
import { pgCommand } from './pg.ts';
import { reportCommand } from './report.ts';
import { resolveCommand } from './resolve.ts';
import { statusCommand } from './status.ts';
import { stopCommand } from './stop.ts';
import { watchCommand } from './watch.ts';
import { fencedCommand, switchedCommand } from './word.ts';
import { workerCommand } from './worker.ts';

const HELP = `
Examples:
  pgtransit pg -s postgres://app@old.example/app -t postgres://app@new.example/app --validate
  SOURCE_SERVICE_URI=postgres://… TARGET_SERVICE_URI=postgres://… pgtransit worker
  temporal workflow start --task-queue pgtransit --type migrateCluster --workflow-id blue-green
  source <(pgtransit completion bash)

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted. PGTRANSIT_DEBUG=1 shows where an error came from.`;

const OTHERS = 'Other commands:';

/** All commands. What commander prints about a wrong one goes to stderr, without passwords. */
export function buildProgram(secrets: Secrets): Command {
  const program = new Command('pgtransit')
    .description('Moves live PostgreSQL databases to another PostgreSQL server, as a Temporal workflow.')
    .version(version(), '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print this help')
    .commandsGroup(OTHERS)
    .helpCommand('help [command]', 'print the help of a command')
    .addHelpText('after', HELP)
    .exitOverride()
    .configureOutput({ outputError: (text, write) => write(secrets.mask(text.replace(/^error:/, 'pgtransit:'))) });
  const add = (group: string, ...commands: Command[]) => {
    for (const command of commands) {
      const help = `Run \`pgtransit ${command.name()} --help\` for what there is.`;
      program.addCommand(command.copyInheritedSettings(program).showHelpAfterError(help).helpGroup(group));
    }
  };
  add('To migrate:', pgCommand(secrets));
  const migrations = [
    statusCommand,
    watchCommand,
    rehearseCommand,
    stopCommand,
    fencedCommand,
    switchedCommand,
    rollbackCommand,
    completeCommand,
    resolveCommand,
    cancelCommand,
    listCommand,
    reportCommand,
    cleanupCommand,
  ];
  add('For migrations that there are:', ...migrations.map((command) => command(secrets)));
  add('For platforms:', workerCommand(secrets), doctorCommand(secrets));
  add(OTHERS, completionCommand(program));
  return program.showHelpAfterError('Run `pgtransit --help` for what there is.');
}

function version(): string {
  const { version } = JSON.parse(readFileSync(join(packageRoot(), 'package.json'), 'utf8')) as { version: string };
  return version;
}
