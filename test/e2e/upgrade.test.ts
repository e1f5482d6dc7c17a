import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import { expect, test } from 'vitest';
import { own } from '../../lab/processes.ts';
import { startPostgres } from '../../lab/postgres-server.ts';
import { projectRoot, workDir } from '../../lab/tools.ts';
import { HOLD_SCHEMA, holdAt } from '../support/hold.ts';
import { expectEqual, leftovers, startMigration } from '../support/live-migration.ts';

const git = (...args: string[]): string => spawnSync('git', args, { cwd: projectRoot, encoding: 'utf8' }).stdout.trim();

/**
 * The version whose migrations must be finished by this one: the last release, or any commit by hand:
 * `PGTRANSIT_TEST_UPGRADE_FROM=HEAD~5 npx vitest run test/e2e/upgrade.test.ts`.
 */
const before = process.env['PGTRANSIT_TEST_UPGRADE_FROM'] ?? git('describe', '--tags', '--abbrev=0', '--match', 'v*');

/** Its program, built in a work tree of its own. */
function buildOf(commit: string): { bin: string; remove: () => void } {
  const tree = mkdtempSync(path.join(workDir(), 'earlier-'));
  own({ remove: [tree] });
  const run = (command: string, ...args: string[]) => {
    const { status, stderr } = spawnSync(command, args, { cwd: tree, encoding: 'utf8' });
    if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${stderr}`);
  };
  spawnSync('git', ['worktree', 'add', '--detach', '--force', tree, commit], { cwd: projectRoot });
  for (const shared of ['node_modules', '.tools'])
    if (existsSync(path.join(projectRoot, shared)))
      symlinkSync(path.join(projectRoot, shared), path.join(tree, shared));
  run(process.execPath, 'scripts/build.mjs');
  return {
    bin: path.join(tree, 'bin', 'pgtransit'),
    remove: () => {
      rmSync(tree, { recursive: true, force: true });
      git('worktree', 'prune');
    },
  };
}

test.skipIf(before === '')(
  `a migration that a worker of ${before || 'the last release (there is none yet)'} began is finished by this one`,
  { timeout: 300_000 },
  async () => {
    const earlier = buildOf(before);
    const [source, target] = await Promise.all([startPostgres({ major: 17 }), startPostgres({ major: 18 })]);
    const database = 'upgraded';
    await source.psql('postgres', `CREATE DATABASE ${database}`);
    await source.psql(database, HOLD_SCHEMA);
    await target.psql('postgres', `CREATE DATABASE ${database}`);
    const hold = await holdAt(target, database, 'copy');
    const migration = await startMigration({ source, target, databases: [database], program: earlier.bin });
    try {
      await hold.reached();
      await migration.killWorker();
      await hold.release();
      await migration.phase('streaming', 120_000);
      await migration.signalStop();
      expect((await migration.report()).databases[0]?.status).toBe('done');
      await expectEqual(source, target, [database]);
      expect(await leftovers(source, target, [database])).toEqual([]);
    } finally {
      await hold.release().catch(() => undefined);
      await migration.close();
      await Promise.all([source.remove(), target.remove()]);
      earlier.remove();
    }
  },
);
