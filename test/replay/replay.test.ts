import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { DefaultLogger, Runtime, Worker } from '@temporalio/worker';
import { beforeAll, describe, expect, inject, it } from 'vitest';

/**
 * Histories of real migrations, a folder a version. Workflow code that cannot replay them would stop migrations that
 * run at somebody's while the worker is upgraded.
 *
 * THE RULE: the histories of a released version are never recorded again. When one of them fails here, the workflow
 * code is wrong: keep the old order of steps behind `patched()`. Only the folder of the version that is not released
 * yet is made anew, by `node scripts/build.mjs && node scripts/record-histories.mjs`.
 */
const histories = path.join(import.meta.dirname, 'histories');

interface RecordedHistory {
  events: { workflowExecutionStartedEventAttributes?: { workflowId: string } }[];
}

const files = readdirSync(histories, { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.json'))
  .sort();

const read = (file: string): string => readFileSync(path.join(histories, file), 'utf8');

async function replay(history: RecordedHistory): Promise<void> {
  const codePath = inject('workflowBundlePath');
  if (codePath === null) throw new Error('The workflow bundle was not built: see test/support/global-setup.ts.');
  const workflowId = history.events[0]?.workflowExecutionStartedEventAttributes?.workflowId;
  if (workflowId === undefined) throw new Error('The history does not begin with the start of a workflow.');
  await Worker.runReplayHistory({ workflowBundle: { codePath } }, history, workflowId);
}

describe('the workflow code of today', () => {
  // A failed replay is told by its error; the log would repeat it with the whole history.
  beforeAll(() => Runtime.install({ logger: new DefaultLogger('ERROR', () => undefined) }));

  it('has histories of every way in which a migration goes', () => {
    const names = new Set(files.map((file) => path.basename(file, '.json')));
    expect([...names]).toEqual(
      expect.arrayContaining([
        'cluster-stopped-by-signal',
        'database-by-replication',
        'database-by-dump',
        'database-parked-and-resolved',
        'database-cancelled',
        'database-rolled-back',
        'cluster-together',
      ]),
    );
  });

  it('has the histories of each released version as they were released', () => {
    const git = (...args: string[]) => spawnSync('git', args, { cwd: import.meta.dirname, encoding: 'utf8' });
    const tags = git('tag', '--list', 'v*')
      .stdout.split('\n')
      .filter((tag) => tag !== '');
    for (const tag of tags) {
      const folder = path.join(histories, tag.slice(1));
      expect(git('diff', '--name-only', tag, '--', folder).stdout, tag).toBe('');
    }
  });

  it.each(files)('replays %s', async (file) => {
    await replay(JSON.parse(read(file)) as RecordedHistory);
  });

  it('would be noticed when it leaves a step out', async () => {
    const file = files.find((name) => name.endsWith('database-by-dump.json'));
    // As recorded by a version that had another step in the place of this one.
    const text = read(file ?? '').replaceAll('"name":"planCopy"', '"name":"planTheCopy"');
    await expect(replay(JSON.parse(text) as RecordedHistory)).rejects.toThrow(/planCopy/);
  });
});
