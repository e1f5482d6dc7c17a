import process from 'node:process';
import { Command } from 'commander';
import type { Logger } from 'pino';
import type { Secrets } from '../temporal/secrets.ts';
import type { TemporalSession } from '../temporal/session.ts';
import { openTemporal } from '../temporal/session.ts';
import { stateDirectory } from '../temporal/state-dir.ts';
import { logOf } from './process-log.ts';

export interface SessionFlags {
  stateDir?: string;
  json?: boolean;
}

/** A command about migrations that there are, on a configured Temporal server or our own. */
export const sessionCommand = (name: string, description: string): Command =>
  new Command(name)
    .description(description)
    .option('--json', 'the answer as one JSON object')
    .option(
      '--state-dir <directory>',
      "where pgtransit's own Temporal server keeps its file (else PGTRANSIT_STATE_DIR)",
    );

/** `work` answers the exit code. */
export async function withTemporal(
  { stateDir }: SessionFlags,
  secrets: Secrets,
  work: (session: TemporalSession, log: Logger) => Promise<number>,
): Promise<void> {
  const directory = () => stateDirectory(process.env, stateDir ?? null);
  const log = logOf(process.env['PGTRANSIT_DEBUG'] === '1', secrets, directory);
  const session = await openTemporal(process.env, directory);
  try {
    process.exitCode = await work(session, log);
  } finally {
    await session.close();
  }
}

export const print = (flags: SessionFlags, text: string, value: unknown): void =>
  void process.stdout.write(flags.json === true ? `${JSON.stringify(value, null, 2)}\n` : `${text}\n`);
