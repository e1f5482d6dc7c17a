import { mkdirSync, realpathSync } from 'node:fs';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';

/**
 * Where pgtransit keeps its own Temporal server's file and its logs: `given` (--state-dir), PGTRANSIT_STATE_DIR, or the
 * XDG state directory. Only this user can look into it.
 * @throws Error with one sentence when it cannot be made
 */
export function stateDirectory(env: NodeJS.ProcessEnv, given: string | null = null): string {
  const xdg = env['XDG_STATE_HOME'] || join(env['HOME'] || homedir(), '.local', 'state');
  const directory = resolve(given ?? (env['PGTRANSIT_STATE_DIR'] || join(xdg, 'pgtransit')));
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    return realpathSync(directory);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new Error(`The state directory ${directory} cannot be made: ${reason}. Name another one with --state-dir.`, {
      cause: error,
    });
  }
}
