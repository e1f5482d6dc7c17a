import { execFile } from 'node:child_process';

export interface RunOptions {
  env?: NodeJS.ProcessEnv;
  /** Standard input; without it there is none. */
  input?: string;
}

/** PostgreSQL refuses to run as root; `nobody` is on every system. */
export const serverUser: { uid?: number; gid?: number } = process.getuid?.() === 0 ? { uid: 65534, gid: 65534 } : {};

/** Runs a program to its end as the user that servers run as, and gives its standard output. */
export function runProgram(program: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  return new Promise((resolve, reject) => {
    const settings = { ...serverUser, cwd: '/', env: options.env ?? process.env, maxBuffer: 64 * 1024 * 1024 };
    const child = execFile(program, args, settings, (error, stdout, stderr) => {
      if (!error) resolve(stdout);
      else reject(new Error(`${program} failed: ${(stderr || stdout || error.message).trim()}`, { cause: error }));
    });
    child.stdin?.on('error', () => undefined); // the program ended without reading it, and its exit code says why
    child.stdin?.end(options.input ?? '');
  });
}
