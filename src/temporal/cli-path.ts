import { accessSync, constants, readFileSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { packageRoot } from '../package-root.ts';

/**
 * The Temporal CLI of this machine, looked for in the order of scripts/setup.mjs.
 * @throws Error with one sentence when there is none
 */
export function temporalCliPath(env: NodeJS.ProcessEnv = process.env): string {
  const named = env['TEMPORAL_CLI_PATH'];
  if (named) {
    if (isExecutable(named)) return named;
    throw new Error(`TEMPORAL_CLI_PATH is "${named}", which is no executable file: correct it or unset it.`);
  }
  const root = packageRoot();
  const sdk = join(root, 'node_modules/@temporalio/testing/package.json');
  const places = [
    ...(env['PATH'] ?? '').split(delimiter).map((directory) => join(directory, 'temporal')),
    join(root, '.tools', 'bin', 'temporal'),
    join(tmpdir(), `temporal-sdk-typescript-${versionIn(sdk)}`),
  ];
  const found = places.find(isExecutable);
  if (found !== undefined) return found;
  throw new Error(
    'There is no Temporal CLI. In a checkout, `npm run setup` fetches one; else install it (https://docs.temporal.io/cli) ' +
      'or name it in TEMPORAL_CLI_PATH. With a Temporal server of your own (TEMPORAL_ADDRESS) none is needed.',
  );
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile();
  } catch {
    return false;
  }
}

function versionIn(packageJson: string): string {
  try {
    return (JSON.parse(readFileSync(packageJson, 'utf8')) as { version: string }).version;
  } catch {
    return 'unknown';
  }
}
