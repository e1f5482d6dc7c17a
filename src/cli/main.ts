import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import process from 'node:process';
import { Command, CommanderError } from 'commander';
import { packageRoot } from '../package-root.ts';
import { messageOf } from '../temporal/connection.ts';
import { secretsOfEnvironment } from '../temporal/secrets.ts';
import { workerCommand } from './worker.ts';

/** 0: done. 1: it failed; the sentence on stderr says why. 2: the command line was wrong; nothing was done. */
const FAILED = 1;
const USAGE = 2;

const EXAMPLES = `
Examples:
  SOURCE_SERVICE_URI=postgres://… TARGET_SERVICE_URI=postgres://… pgtransit worker
  temporal workflow start --task-queue pgtransit --type migrateCluster --workflow-id blue-green
  temporal workflow query --workflow-id blue-green --type progress

Exit codes: 0 done, 1 failed, 2 wrong usage. PGTRANSIT_DEBUG=1 shows where an error came from.`;

const secrets = secretsOfEnvironment(process.env);

function version(): string {
  const { version } = JSON.parse(readFileSync(join(packageRoot(), 'package.json'), 'utf8')) as { version: string };
  return version;
}

function fail(error: unknown): never {
  const debug = process.env['PGTRANSIT_DEBUG'] === '1' && error instanceof Error;
  const text = debug ? `${error.stack ?? error.message}${causes(error)}` : messageOf(error);
  process.stderr.write(`pgtransit: ${secrets.mask(text)}\n`);
  process.exit(FAILED);
}

function causes(error: Error): string {
  let text = '';
  for (let cause = error.cause; cause instanceof Error; cause = cause.cause)
    text += `\ncaused by ${cause.stack ?? cause.message}`;
  return text;
}

async function main(): Promise<number> {
  const program = new Command('pgtransit')
    .description('Moves live PostgreSQL databases to another PostgreSQL server, as a Temporal workflow.')
    .version(version(), '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print this help')
    .showHelpAfterError('Run `pgtransit --help` for what there is.')
    .addHelpText('after', EXAMPLES)
    .exitOverride()
    .configureOutput({ outputError: (text, write) => write(text.replace(/^error:/, 'pgtransit:')) });
  program.addCommand(workerCommand(secrets).copyInheritedSettings(program));
  try {
    await program.parseAsync();
    return 0;
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    return error.exitCode === 0 ? 0 : USAGE; // commander has printed it
  }
}

process.on('uncaughtException', fail);
process.on('unhandledRejection', fail);
// Exits by itself: a connection attempt that was given up may keep the process alive for minutes.
main().then((code) => process.exit(code), fail);
