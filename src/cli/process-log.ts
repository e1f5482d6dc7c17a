import { appendFileSync } from 'node:fs';
import { join } from 'node:path';
import process from 'node:process';
import type { Logger } from 'pino';
import { createLog, installRuntime } from '../temporal/runtime.ts';
import type { Secrets } from '../temporal/secrets.ts';

/** The log of a command's own worker: a file of the state directory, since the terminal shows progress; or stderr. */
export function logOf(debug: boolean, secrets: Secrets, stateDir: () => string): Logger {
  const file = join(stateDir(), 'pgtransit.log');
  const output = { write: (line: string) => appendFileSync(file, line, { mode: 0o600 }) };
  const log = createLog(process.env, secrets, debug ? process.stderr : output);
  installRuntime(log);
  return log;
}
