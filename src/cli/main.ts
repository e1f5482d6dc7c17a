import process from 'node:process';
import { ServiceError, WorkflowUpdateFailedError } from '@temporalio/client';
import { CommanderError } from 'commander';
import { parseConnInfo } from '../postgres/conninfo.ts';
import { messageOf, shortReason } from '../temporal/connection.ts';
import { secretsOfEnvironment } from '../temporal/secrets.ts';
import { commandLine } from './background.ts';
import { buildProgram } from './program.ts';
import { UsageError } from './usage-error.ts';

/** 0: done. 1: it failed; the sentence on stderr says why. 2: the command line was wrong; nothing was done. */
const FAILED = 1;
const USAGE = 2;

const argv = commandLine();
// bin/pgtransit has hidden the arguments; a command's name is nobody's secret.
if (/^[a-z]+$/.test(argv[0] ?? '')) process.title = `pgtransit ${argv[0]}`;

const secrets = secretsOfEnvironment(process.env);

/** Whatever the flag: an error may name any argument, the mistyped one too. */
for (const argument of argv) {
  const text = argument.replace(/^--?[a-z-]+=/, '');
  if (!/^\s*postgres(ql)?:\/\/|\b(ssl)?password\s*=/.test(text)) continue;
  try {
    secrets.addConnInfo(parseConnInfo(text, 'an argument'));
  } catch {
    secrets.add(text); // one with a mistake in it
  }
}

function fail(error: unknown): never {
  const debug = process.env['PGTRANSIT_DEBUG'] === '1' && error instanceof Error;
  const text = debug ? `${error.stack ?? error.message}${causes(error)}` : sentenceOf(error);
  process.stderr.write(`pgtransit: ${secrets.mask(text)}\n`);
  process.exit(error instanceof UsageError ? USAGE : FAILED);
}

/** Temporal's client only says what it was doing; why that failed is in the cause. */
function sentenceOf(error: unknown): string {
  if (error instanceof WorkflowUpdateFailedError) return messageOf(error.cause ?? error);
  if (error instanceof ServiceError) return `${error.message}: ${shortReason(error.cause)}.`;
  return messageOf(error);
}

function causes(error: Error): string {
  let text = '';
  for (let cause = error.cause; cause instanceof Error; cause = cause.cause)
    text += `\ncaused by ${cause.stack ?? cause.message}`;
  return text;
}

/** A command that ends neither well nor by an error sets `process.exitCode`. */
async function main(): Promise<number> {
  try {
    await buildProgram(secrets).parseAsync(argv, { from: 'user' });
    return Number(process.exitCode ?? 0);
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    return error.exitCode === 0 ? 0 : USAGE; // commander has printed it
  }
}

process.on('uncaughtException', fail);
process.on('unhandledRejection', fail);
// Exits by itself: a connection attempt that was given up may keep the process alive for minutes.
main().then((code) => process.exit(code), fail);
