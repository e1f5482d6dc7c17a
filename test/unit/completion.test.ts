import { execFileSync } from 'node:child_process';
import { Command } from 'commander';
import { describe, expect, test } from 'vitest';
import { completionCommand, completionScript } from '../../src/cli/completion.ts';
import { pgFlags } from '../../src/cli/pg-flags.ts';

const program = new Command('pgtransit').version('1', '-V, --version').addCommand(pgFlags());
program.addCommand(completionCommand(program));

/** What bash offers for the last of these words. */
function offered(...words: string[]): string[] {
  const script = `${completionScript(program, 'bash')}
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _pgtransit; printf '%s\\n' "\${COMPREPLY[@]}"`;
  const output = execFileSync('bash', ['-c', script, 'bash', 'pgtransit', ...words], { encoding: 'utf8', cwd: '/' });
  return output.trim().split('\n');
}

describe('the completion for bash', () => {
  test('offers commands, and the options of the command that is there', () => {
    expect(offered('')).toEqual(expect.arrayContaining(['pg', 'completion', '--help', '--version']));
    expect(offered('p')).toEqual(['pg']);
    expect(offered('pg', '--s').sort()).toEqual(
      [
        '--show-passwords',
        '--skip-db-version-check',
        '--skip-table',
        '--source',
        '--source-for-target',
        '--state-dir',
        '--stop-replication',
      ].sort(),
    );
    expect(offered('pg', '-x')).toEqual(['-xr', '-xe']);
  });

  test('offers what an option can be: a word of its own, a directory, or nothing that it would know', () => {
    expect(offered('pg', '--force-method', 'd')).toEqual(['dump']);
    expect(offered('pg', '-d', '--pgbin', '/us')).toEqual(['/usr']);
    expect(offered('pg', '-s', '')).toEqual(['']);
    expect(offered('completion', '')).toEqual(expect.arrayContaining(['bash', 'zsh', 'fish']));
  });
});

/** Neither shell is on every machine, so this looks at what they are told. */
describe('the completion for zsh and fish', () => {
  test('knows every option with its description', () => {
    const zsh = completionScript(program, 'zsh');
    expect(zsh).toContain(`'(-xr --excluded-roles)-xr[roles to leave out]:value:'`);
    expect(zsh).toContain('--force-method[');
    expect(zsh).toContain(':value:(replication dump schema_only replication_with_dump_fallback)');
    const fish = completionScript(program, 'fish');
    expect(fish).toContain(`-n '__fish_seen_subcommand_from pg' -o xr -l excluded-roles -x -d 'roles to leave out'`);
    expect(fish).toContain(`-l no-replicate-extension-tables -d '… or not'`);
    for (const { long } of program.commands[0]?.options ?? []) {
      expect(zsh).toContain(`${long}[`);
      expect(fish).toContain(`-l ${long?.slice(2)} `);
    }
  });
});
