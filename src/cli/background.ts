import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import process from 'node:process';
import type { PgOptions } from './pg-options.ts';

/** The command line of a process that was started by `startInBackground`: argv is for everybody to see. */
export const BACKGROUND_ARGUMENTS = 'PGTRANSIT_BACKGROUND_ARGUMENTS';

/** The same command without --detach, in a session of its own. Returns the file that has its output. */
export function startInBackground({ servers }: PgOptions, stateDir: string, id: string): string {
  const file = join(stateDir, `${id}.log`);
  const log = openSync(file, 'a', 0o600);
  const [node = process.execPath, program = '', ...given] = process.argv;
  const child = spawn(node, [program], {
    detached: true,
    stdio: ['ignore', log, log],
    env: {
      ...process.env,
      [BACKGROUND_ARGUMENTS]: JSON.stringify(given.filter((argument) => argument !== '--detach')),
      SOURCE_SERVICE_URI: servers.source.text,
      TARGET_SERVICE_URI: servers.target.text,
    },
  });
  closeSync(log);
  child.unref();
  return file;
}

/** What the user typed, wherever it came from. */
export function commandLine(): string[] {
  const hidden = process.env[BACKGROUND_ARGUMENTS];
  delete process.env[BACKGROUND_ARGUMENTS];
  return hidden === undefined ? process.argv.slice(2) : (JSON.parse(hidden) as string[]);
}
