import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { WHOLE } from '../../src/cli/view/live.ts';
import type { ProgressOutput } from '../../src/cli/view/output.ts';
import { lineOutput, liveOutput, progressOutput } from '../../src/cli/view/output.ts';
import type { ClusterProgress } from '../../src/domain/progress.ts';
import { cluster, database, live, MEASURED_AT } from '../support/progress-fixture.ts';
import { fakeTerminal } from '../support/terminal.ts';

beforeEach(() => void vi.useFakeTimers({ now: MEASURED_AT }));
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllEnvs();
});

const pass = (seconds: number) => vi.setSystemTime(Date.now() + seconds * 1000);

const NOTHING = new Map<string, never>();

describe('on a terminal', () => {
  const three = cluster([database('a'), database('b'), database('c')]);
  const one = cluster([database('a', { phase: 'done' })], { phase: 'done' });

  test('the view is drawn again in place, in one write, and leaves what was there before', () => {
    const terminal = fakeTerminal(80, 24);
    terminal.write('$ pgtransit watch\n');
    const output = liveOutput(terminal);
    output.show(three, NOTHING);
    output.show(three, NOTHING);
    expect(terminal.writes).toBe(3);
    expect(terminal.lines()).toHaveLength(1 + 4 + 1);
    output.show(one, NOTHING);
    expect(terminal.lines()).toEqual(['$ pgtransit watch', 'pgtransit-0123456789ab: done', 'a         done', '']);
  });

  test('also after the terminal became narrower or lower', () => {
    const terminal = fakeTerminal(120, 24);
    terminal.write('$ pgtransit watch\n');
    const output = liveOutput(terminal);
    output.show(three, NOTHING);
    // As terminals do: what no longer fits is broken into more lines.
    const narrow = fakeTerminal(40, 24);
    narrow.write(terminal.lines().join('\n'));
    Object.assign(terminal, { columns: 40, write: (text: string) => narrow.write(text) });
    output.show(three, NOTHING);
    const narrowView = (...databases: string[]) => [
      '$ pgtransit watch',
      'pgtransit-0123456789ab: copying, 0 of …',
      ...databases.map((name) => `${name}         copying      30%`),
    ];
    expect(narrow.lines()).toEqual([...narrowView('a', 'b', 'c'), '']);
    Object.assign(terminal, { rows: 4 });
    output.show(three, NOTHING);
    expect(narrow.lines()).toEqual([...narrowView('a'), '… and 2 more: 2 copying', '']);
  });

  test('where it does not tell its size, that of the oldest ones is taken', () => {
    const [told, untold] = [fakeTerminal(80, 24), fakeTerminal(80, 24)];
    const output = liveOutput({ write: (text: string) => untold.write(text), columns: 0, rows: 0 });
    for (const each of [liveOutput(told), output]) {
      each.show(three, NOTHING);
      each.show(three, NOTHING);
    }
    expect(untold.lines()).toEqual(told.lines());
  });

  test('names and sentences of a hostile server stay text', () => {
    const evil = '\x1b[2J\x1b[31m\x1b]0;owned\x07\x9b1A\r\nrm -rf\u202e';
    const terminal = fakeTerminal(200, 24);
    const all = cluster(
      [
        database(evil, { attention: evil, answers: ['retry'] }),
        database(`2${evil}`, { phase: 'failed', message: evil }),
        database(`3${evil}`, { phase: 'preparing', message: evil }),
      ],
      { id: evil },
    );
    const steps = live({ current: [evil], waitingFor: evil, retrying: [{ step: evil, attempt: 2, failure: evil }] });
    liveOutput(terminal).show(all, new Map(all.databases.map(({ database }) => [database, steps])));
    liveOutput(terminal).away(evil, new Date());
    const log = lines();
    log.output.show(all, new Map(all.databases.map(({ database }) => [database, steps])));
    log.output.away(evil, new Date());
    for (const line of [...terminal.lines(), ...log.said]) expect(line).not.toMatch(/\p{C}/u);
    expect(log.said.length).toBe(4);
  });

  test('a server that is away is said below what was known, for how long, until it answers', () => {
    const terminal = fakeTerminal(60, 24);
    const output = liveOutput(terminal);
    const since = new Date();
    output.show(cluster([database('a')]), NOTHING);
    pass(7);
    output.away('connection refused', since);
    pass(120);
    output.away('connection refused', since);
    expect(terminal.lines()).toEqual([
      'pgtransit-0123456789ab: copying, 1.2 GB of 4.0 GB, as of 2…',
      'a         copying      [###.......]  1.2 GB of 4.0 GB',
      '! No news from Temporal for 2 min 7 s: connection refused.',
      'Waiting for it.',
      '',
    ]);
    output.show(one, NOTHING);
    expect(terminal.lines()).toEqual(['pgtransit-0123456789ab: done', 'a         done', '']);
  });
});

/** What a log has, without its line ends. */
function lines(): { output: ProgressOutput; said: string[] } {
  const said: string[] = [];
  const write = (text: string) => said.push(text.replace(/\n$/, '')) > 0;
  return { output: lineOutput({ write }), said };
}

describe('in a log', () => {
  test('there is a line when something has changed, and one a minute while something runs', () => {
    const { output, said } = lines();
    const copying = (copied: number): ClusterProgress =>
      cluster([database('a', { bytes: { copied, total: 100 } }), database('b', { phase: 'done' })]);
    output.show(copying(10), NOTHING);
    for (let second = 0; second < 130; second += 1) {
      pass(1);
      output.show(copying(20 + second / 10), NOTHING);
    }
    output.show(
      cluster([database('a', { phase: 'done' }), database('b', { phase: 'done' })], { phase: 'done' }),
      NOTHING,
    );
    pass(1000);
    output.show(
      cluster([database('a', { phase: 'done' }), database('b', { phase: 'done' })], { phase: 'done' }),
      NOTHING,
    );
    expect(said).toEqual([
      '05:06:07 a: copying, 3 of 7 tables, 10 B of 100 B',
      '05:06:07 b: done',
      '05:07:07 a: copying, 3 of 7 tables, 25.9 B of 100 B',
      '05:08:07 a: copying, 3 of 7 tables, 31.9 B of 100 B',
      '05:08:17 a: done',
    ]);
  });

  test('there is one line a minute for all databases, however many they are', () => {
    const { output, said } = lines();
    const many = cluster(Array.from({ length: 50 }, (_, index) => database(`db${index}`)));
    output.show(many, NOTHING);
    expect(said.splice(0)).toHaveLength(50);
    pass(60);
    output.show(many, new Map([['db1', live({ bytesPerSecond: 2e6 })]]));
    expect(said).toEqual(['05:07:07 50 copying, 60.0 GB of 200.0 GB, 2.0 MB/s']);
  });

  test('what needs a person is said when it begins and when it is over', () => {
    const { output, said } = lines();
    const parked = { phase: 'indexing', attention: 'a: No space.', answers: ['retry', 'abort'] } as const;
    output.show(cluster([database('a', { ...parked, answers: [...parked.answers] })]), NOTHING);
    output.show(cluster([database('a', { phase: 'indexing' })]), NOTHING);
    expect(said).toEqual(['05:06:07 a: indexing, ! a: No space.', '05:06:07 a: indexing']);
  });

  test('a step that fails again and again for one reason has one line', () => {
    const { output, said } = lines();
    for (let attempt = 2; attempt < 9; attempt += 1) {
      const retrying = [{ step: 'copyTables', attempt, failure: 'The target does not answer.' }];
      output.show(cluster([database('a')]), new Map([['a', live({ retrying })]]));
      output.show(cluster([database('a')]), NOTHING);
    }
    expect(said).toEqual([
      '05:06:07 a: copying, 3 of 7 tables, 1.2 GB of 4.0 GB, ' +
        '! copyTables failed, and is tried again by itself (attempt 2): The target does not answer.',
    ]);
  });

  test('what the migration itself does not get done has a line too', () => {
    const { output, said } = lines();
    const retrying = [{ step: 'migrateRoles', attempt: 2, failure: 'The target does not answer.' }];
    for (const attempt of [2, 3]) {
      const steps = live({ retrying: retrying.map((step) => ({ ...step, attempt })) });
      output.show(cluster([], { phase: 'preparing' }), new Map([[WHOLE, steps]]));
    }
    expect(said[0]).toMatch(/^05:06:07 ! migrateRoles failed, .*\(attempt 2\): The target does not answer\.$/);
    expect(said.filter((line) => line.includes('migrateRoles'))).toHaveLength(1);
  });

  test('a server that is not there yet is said once, with how long it is waited for', () => {
    const { output, said } = lines();
    const steps = live({ waitingFor: 'connect ECONNREFUSED 127.0.0.1:1.' });
    for (let look = 0; look < 3; look += 1)
      output.show(cluster([], { phase: 'validating' }), new Map([[WHOLE, steps]]));
    expect(said.filter((line) => line.includes('ECONNREFUSED'))).toEqual([
      '05:06:07 ! Trying again for up to 30 s: connect ECONNREFUSED 127.0.0.1:1.',
    ]);
  });

  test('a server that is away is said at once, once a minute, and when it is back', () => {
    const { output, said } = lines();
    output.show(cluster([database('a')]), NOTHING);
    const since = new Date();
    for (let second = 0; second < 70; second += 1) {
      pass(1);
      output.away('connection refused', since);
    }
    output.show(cluster([database('a')]), NOTHING);
    expect(said.slice(1)).toEqual([
      '05:06:08 ! No news from Temporal for 1 s: connection refused. Waiting for it.',
      '05:07:08 ! No news from Temporal for 1 min 1 s: connection refused. Waiting for it.',
      '05:07:17 There is news again.',
    ]);
  });

  test.each([
    ['a pipe', { isTTY: false }, 'xterm'],
    ['a terminal that knows no escape sequences', { isTTY: true }, 'dumb'],
    ['a terminal that shows the log of the steps', { isTTY: true }, 'xterm', '1'],
  ])('%s is a log', (_, properties, term, debug = '') => {
    vi.stubEnv('TERM', term);
    vi.stubEnv('PGTRANSIT_DEBUG', debug);
    const said: string[] = [];
    const stream = { ...properties, columns: 80, rows: 24, write: (text: string) => said.push(text) > 0 };
    progressOutput(stream as unknown as NodeJS.WriteStream).show(cluster([database('a')]), NOTHING);
    expect(said).toEqual(['05:06:07 a: copying, 3 of 7 tables, 1.2 GB of 4.0 GB\n']);
  });
});
