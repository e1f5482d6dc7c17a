import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { buildProgram } from '../../src/cli/program.ts';
import { freePort } from '../../src/temporal/free-port.ts';
import { own } from '../../lab/processes.ts';
import { createSecrets } from '../../src/temporal/secrets.ts';
import { projectRoot } from '../../lab/tools.ts';
import { pgtransit } from './command.ts';

async function outcome(args: string[], env?: NodeJS.ProcessEnv) {
  const command = pgtransit(args, env);
  const code = await command.exitCode;
  return { code, stdout: command.stdout, stderr: command.stderr };
}

describe('pgtransit', () => {
  it('prints its version', async () => {
    const { version } = JSON.parse(readFileSync(path.join(projectRoot, 'package.json'), 'utf8')) as { version: string };
    expect(await outcome(['--version'])).toEqual({ code: 0, stdout: `${version}\n`, stderr: '' });
  });

  it('shows examples in its help, and in that of the worker', async () => {
    for (const args of [['--help'], ['worker', '--help'], ['help', 'worker']]) {
      const { code, stdout } = await outcome(args);
      expect(code).toBe(0);
      expect(stdout).toMatch(/Examples:\n[^]*pgtransit worker/);
    }
  });

  it('shows an example of each command in its help', () => {
    for (const command of buildProgram(createSecrets()).commands) {
      let help = '';
      command.configureOutput({ writeOut: (text) => (help += text) }).outputHelp();
      expect(help).toMatch(new RegExp(`^Examples?:\n[^]*pgtransit ${command.name()}\\b`, 'm'));
    }
  });

  it('suggests what was meant by a mistyped command or option, and says so by exit code 2', async () => {
    const command = await outcome(['wroker']);
    expect(command.code).toBe(2);
    expect(command.stderr).toMatch(/^pgtransit: unknown command 'wroker'\n\(Did you mean worker\?\)/);
    const option = await outcome(['worker', '--task-qeue', 'x']);
    expect(option.code).toBe(2);
    expect(option.stderr).toMatch(/^pgtransit: unknown option '--task-qeue'\n\(Did you mean --task-queue\?\)/);
  });

  it('repeats no password of an argument that it cannot take', async () => {
    for (const wrong of ['--sauce=postgres://u:hush%21hush@h/d', '--sauce=host=h password=hush!hush']) {
      const { code, stderr } = await outcome(['worker', wrong]);
      expect(code).toBe(2);
      expect(stderr).toMatch(/^pgtransit: unknown option '--sauce=/);
      expect(stderr).not.toMatch(/hush/);
    }
  });

  it('hides its arguments from ps before it loads anything', () => {
    const root = mkdtempSync(path.join(tmpdir(), 'pgtransit-bin-'));
    own({ remove: [root] });
    for (const directory of ['bin', 'dist/src/cli']) mkdirSync(path.join(root, directory), { recursive: true });
    writeFileSync(path.join(root, 'package.json'), '{"type": "module"}');
    copyFileSync(path.join(projectRoot, 'bin/pgtransit'), path.join(root, 'bin/pgtransit'));
    const look = `import { readFileSync } from 'node:fs'; process.stdout.write(readFileSync('/proc/self/cmdline', 'utf8'));`;
    writeFileSync(path.join(root, 'dist/src/cli/main.js'), look);
    const args = [path.join(root, 'bin/pgtransit'), 'pg', '-s', 'postgres://app:hush@old.example/app'];
    const seen = execFileSync(process.execPath, args, { encoding: 'utf8' });
    expect(seen.replace(/\0+$/, '')).toBe('pgtransit');
  });

  it('prints a script for each shell, and says which there are', async () => {
    for (const shell of ['bash', 'zsh', 'fish']) {
      const { code, stdout } = await outcome(['completion', shell]);
      expect(code).toBe(0);
      expect(stdout).toContain('worker');
    }
    const { code, stderr } = await outcome(['completion', 'tcsh']);
    expect(code).toBe(2);
    expect(stderr).toContain('Allowed choices are bash, zsh, fish.');
  });

  it('prints its help when it is told nothing, and calls that wrong usage', async () => {
    const { code, stderr } = await outcome([]);
    expect(code).toBe(2);
    expect(stderr).toContain('Usage: pgtransit');
  });
});

describe('pgtransit worker, where it cannot work, says why in one sentence and ends with exit code 1', () => {
  const sentence = async (env: NodeJS.ProcessEnv): Promise<string> => {
    const { code, stdout, stderr } = await outcome(['worker'], env);
    expect(code).toBe(1);
    expect(stdout).toBe('');
    expect(stderr).toMatch(/^pgtransit: [^\n]+\n$/);
    return stderr;
  };

  it('at an address where nothing listens', async () => {
    const address = `127.0.0.1:${await freePort()}`;
    const began = Date.now();
    expect(await sentence({ TEMPORAL_ADDRESS: address })).toMatch(
      new RegExp(`^pgtransit: No connection to Temporal at ${address}: Connection refused\\. Check .*TEMPORAL_ADDRESS`),
    );
    expect(Date.now() - began).toBeLessThan(20_000);
  });

  it('with a profile that no temporal.toml has', async () => {
    expect(await sentence({ TEMPORAL_PROFILE: 'nowhere' })).toMatch(/Temporal configuration cannot be read: .*nowhere/);
  });

  it('with a log level that is none', async () => {
    expect(await sentence({ PGTRANSIT_LOG_LEVEL: 'loud' })).toMatch(
      /PGTRANSIT_LOG_LEVEL is "loud"; it can be trace, debug/,
    );
  });

  it('and where the error came from when PGTRANSIT_DEBUG is 1, still without the password', async () => {
    const { stderr } = await outcome(['worker'], {
      PGTRANSIT_DEBUG: '1',
      TEMPORAL_ADDRESS: 'not-4-printing',
      TEMPORAL_API_KEY: 'not-4-printing',
    });
    expect(stderr).toMatch(/\n {4}at /);
    expect(stderr).not.toContain('not-4-printing');
  });
});
