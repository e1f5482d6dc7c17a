import { describe, expect, test } from 'vitest';
import { answerOf } from '../../src/cli/answer.ts';
import { formatSeconds } from '../../src/cli/view/amounts.ts';
import type { LiveDatabase, PendingStep } from '../../src/cli/view/live.ts';
import { copyLanes, liveOf, WHOLE, withLive } from '../../src/cli/view/live.ts';
import { renderProgress } from '../../src/cli/view/progress.ts';
import { RateMeter } from '../../src/cli/view/rate.ts';
import { progressLine, stillLine } from '../../src/cli/view/summary.ts';
import { widthOf } from '../../src/cli/view/width.ts';
import type { ClusterProgress } from '../../src/domain/progress.ts';
import { cluster, database, live, MEASURED_AT } from '../support/progress-fixture.ts';

const PARKED = 'shop: build an index: The index "public.waits" cannot be built. (resolve with retry or abort)';

/** The last measurement was before the end of the copy. */
const INDEXING = { phase: 'indexing', message: 'Building the last of 9 indexes.' } as const;

const render = (
  progress: ClusterProgress,
  steps: Record<string, LiveDatabase> = {},
  size = { columns: 120, rows: 30 },
  now = MEASURED_AT,
): string => renderProgress(progress, new Map(Object.entries(steps)), size, now).join('\n');

describe('the live view', () => {
  test('shows phase, bar, amounts, rate, time left and current tables of what is copied', () =>
    expect(
      render(cluster([database('shop')]), {
        shop: live({ bytesPerSecond: 45_000_000, current: ['public.orders', 'public."Item"'] }),
      }),
    ).toBe(`pgtransit-0123456789ab: copying, 1.2 GB of 4.0 GB
shop      copying      [######..............]  3 of 7 tables  1.2 GB of 4.0 GB  45.0 MB/s  about 1 min 3 s left
          public.orders, public."Item"`));

  test('leaves out first what is needed least where there is little room', () => {
    const lines = (columns: number) =>
      render(cluster([database('shop')]), { shop: live({ bytesPerSecond: 45e6 }) }, { columns, rows: 30 }).split(
        '\n',
      )[1];
    expect(lines(88)).toBe('shop      copying      [###.......]  1.2 GB of 4.0 GB  45.0 MB/s  about 1 min 3 s left');
    expect(lines(80)).toBe('shop      copying      [###.......]  30%  45.0 MB/s  about 1 min 3 s left');
    expect(lines(60)).toBe('shop      copying      30%  45.0 MB/s  about 1 min 3 s left');
    expect(lines(30)).toBe('shop      copying      30%  …');
  });

  test('says what the others do: lag, what is waited for, what the phase is about', () =>
    expect(
      render(
        cluster(
          [
            database('caught', { phase: 'catching-up', lagBytes: 12_300_000 }),
            database('gate', { phase: 'stopping', message: 'Cutting over.' }),
            database('keys', { phase: 'subscribing', message: 'Adding foreign keys.' }),
            database('flow', { phase: 'streaming', lagBytes: 0 }),
            database('ready', { phase: 'done', message: '7 tables were copied.' }),
          ],
          { phase: 'subscribing' },
        ),
        { gate: live({ waitingFor: 'prepared transaction "x"' }) },
      ),
    ).toBe(`pgtransit-0123456789ab: subscribing, 1 of 5 databases done
caught    catching-up  12.3 MB behind
gate      stopping     waits for prepared transaction "x"
keys      subscribing  Adding foreign keys.
flow      streaming    0 B behind
ready     done
To cut over (without a fence: stop the writes to the source first):
  pgtransit stop pgtransit-0123456789ab`));

  test('gives the command by which somebody says that they have done what is waited for', () => {
    const asked = 'shop: Lead the clients of shop to the target. Then send the update switched.';
    const waits = database('shop', { phase: 'finishing', lagBytes: null, attention: asked, waitsFor: 'switched' });
    expect(render(cluster([waits], { phase: 'finishing' }))).toContain(
      '\n    pgtransit switched pgtransit-0123456789ab --database shop --by NAME',
    );
  });

  test('says what a cancelled migration leaves', () => {
    const message = 'The target serves. The source is still read-only.';
    const cancelled = database('shop', { phase: 'cancelled', message });
    expect(render(cluster([cancelled], { phase: 'cancelled' }))).toContain(`shop      cancelled    ${message}`);
    expect(progressLine(cancelled)).toBe(`shop: cancelled. ${message}`);
  });

  test('says after a cutover how to go back, and how to stay', () => {
    const databases = [database('shop', { phase: 'reversing', lagBytes: 0 })];
    expect(render(cluster(databases, { phase: 'reversing' }))).toBe(`pgtransit-0123456789ab: reversing
shop      reversing    0 B behind
The target serves. To go back to the source, or to let it go:
  pgtransit rollback pgtransit-0123456789ab
  pgtransit complete pgtransit-0123456789ab`);
    const { text } = answerOf.progress('pgtransit-0123456789ab', cluster(databases));
    expect(text).toContain('The target serves: lead the clients there.');
    expect(text).not.toContain('pgtransit stop');
  });

  test('puts what needs a person first, whole, with the command that answers', () =>
    expect(
      render(
        cluster([
          database('busy'),
          database('shop', { ...INDEXING, attention: PARKED, answers: ['retry', 'abort'] }),
          database('lost', { phase: 'failed', message: 'There is no space left.' }),
        ]),
        { busy: live({ retrying: [{ step: 'copyTables', attempt: 3, failure: 'The target does not answer.' }] }) },
        { columns: 80, rows: 30 },
      ),
    ).toBe(`pgtransit-0123456789ab: copying, 0 of 3 databases done, 6.4 GB of 12.0 GB
shop      indexing     Building the last of 9 indexes.
  ! shop: build an index: The index "public.waits" cannot be built. (resolve
    with retry or abort)
    pgtransit resolve retry pgtransit-0123456789ab --database shop   (or abort)
lost      failed
  ! There is no space left.
busy      copying      [######..............]  3 of 7 tables  1.2 GB of 4.0 GB
  ! copyTables failed, and is tried again by itself (attempt 3): The target
    does not answer.`));

  test('says below the heading what the migration itself does not get done', () =>
    expect(
      render(cluster([database('shop', { phase: 'preparing', message: '' })], { phase: 'preparing' }), {
        [WHOLE]: live({ retrying: [{ step: 'migrateRoles', attempt: 3, failure: 'The target does not answer.' }] }),
      }),
    ).toBe(`pgtransit-0123456789ab: preparing
  ! migrateRoles failed, and is tried again by itself (attempt 3): The target does not answer.
shop      preparing`));

  test('quotes a name in the command, and leaves out one that cannot be pasted', () => {
    const answer = (name: string) =>
      render(cluster([database(name, { attention: 'x', answers: ['retry'] })])).split('\n')[3];
    expect(answer(`My "Db"'s`)).toBe(`    pgtransit resolve retry pgtransit-0123456789ab --database 'My "Db"'\\''s'`);
    expect(answer('a\x1bb')).toBe('    pgtransit resolve retry pgtransit-0123456789ab');
    expect(answer('a\nb')).toBe('    pgtransit resolve retry pgtransit-0123456789ab');
  });

  test('shows of many databases those that move, and counts the others', () => {
    const many = [
      ...Array.from({ length: 40 }, (_, index) => database(`done${index}`, { phase: 'done' })),
      ...Array.from({ length: 9 }, (_, index) => database(`next${index}`, { phase: 'preparing', message: '' })),
      database('moves'),
    ];
    expect(render(cluster(many), { moves: live({ current: ['public.t'] }) }, { columns: 80, rows: 8 }))
      .toBe(`pgtransit-0123456789ab: copying, 40 of 50 databases done, 172.0 GB of 200.0 GB
moves     copying      [######..............]  3 of 7 tables  1.2 GB of 4.0 GB
          public.t
next0     preparing
next1     preparing
next2     preparing
… and 46 more: 6 preparing, 40 done`);
  });

  test('says how many of those that it cannot show need a person', () => {
    const all = Array.from({ length: 3 }, (_, index) => database(`db${index}`, { attention: 'x', answers: ['retry'] }));
    expect(render(cluster(all), {}, { columns: 80, rows: 6 }).split('\n').at(-1)).toBe(
      '… and 2 more: ! 2 need you, 2 copying',
    );
  });

  test.each([1, 2, 3, 4, 5, 6, 9, 10, 40, 80, 200])(
    'fits a terminal of %i columns and rows, whatever the names are',
    (size) => {
      const names = [
        '数据库'.repeat(30),
        'e\u0301'.repeat(90),
        '\x1b[2J\x1b[H',
        '🐘👩‍👩‍👧',
        'a\nb',
        '\u202e',
        ' ',
        'x'.repeat(300),
      ];
      const all = names.flatMap((name) => [
        database(name, { attention: name, answers: ['retry', 'skip', 'abort'] }),
        database(`${name}2`, { phase: 'streaming' }),
      ]);
      const steps = new Map(names.map((name) => [name, live({ current: [name], waitingFor: name })]));
      const lines = renderProgress(
        cluster(all, { id: names.join('') }),
        steps,
        { columns: size, rows: size },
        MEASURED_AT,
      );
      expect(lines.length).toBeLessThanOrEqual(Math.max(1, size - 1));
      for (const line of lines) {
        expect(widthOf(line)).toBeLessThanOrEqual(Math.max(1, size - 1));
        expect(line).not.toMatch(/[\p{C}\u2028\u2029]/u);
      }
    },
  );

  test('says when its numbers are old', () => {
    const at = (minutes: number) => new Date(MEASURED_AT.getTime() + minutes * 60_000);
    const flows = cluster([database('flow', { phase: 'streaming', lagBytes: 7 })], { phase: 'streaming' });
    const heading = (minutes: number) => render(flows, {}, undefined, at(minutes)).split('\n')[0];
    expect(heading(1)).toBe('pgtransit-0123456789ab: streaming');
    expect(heading(12)).toBe('pgtransit-0123456789ab: streaming, as of 12 min 0 s ago');
  });

  test('shows a migration whose databases are not known yet', () =>
    expect(render(cluster([], { phase: 'validating' }))).toBe('pgtransit-0123456789ab: validating'));
});

describe('a line of a log', () => {
  test('has one database', () => {
    expect(progressLine(database('a\x1b[1mb'))).toBe('a\\u001b[1mb: copying, 3 of 7 tables, 1.2 GB of 4.0 GB');
    expect(progressLine(database('s', { phase: 'streaming', lagBytes: 1234 }))).toBe('s: streaming, 1.2 kB behind');
    expect(progressLine(database('s', { phase: 'indexing', attention: 'Look\nhere.' }))).toBe(
      's: indexing, ! Look here.',
    );
    expect(progressLine(database('s', { phase: 'failed', message: 'No.' }))).toBe('s: failed, ! No.');
    expect(progressLine(database('s'), live({ bytesPerSecond: 1e6 }))).toBe(
      's: copying, 3 of 7 tables, 1.2 GB of 4.0 GB, 1.0 MB/s, about 46 min 40 s left',
    );
  });

  test('or all of them, when nothing has changed', () => {
    const open = [database('a'), database('b', { phase: 'streaming', lagBytes: 2000 })];
    const steps = new Map([['a', live({ bytesPerSecond: 5e6 })]]);
    expect(stillLine(cluster([...open, database('c', { phase: 'done' })]), steps)).toBe(
      '1 copying, 1 streaming, 1 done, 1.2 GB of 4.0 GB, 5.0 MB/s, at most 2.0 kB behind',
    );
    expect(stillLine(cluster([], { phase: 'validating' }), new Map())).toBe('validating');
    expect(stillLine(cluster([database('a'), database('c', { phase: 'done' })]), steps)).toBe(
      'a: copying, 3 of 7 tables, 1.2 GB of 4.0 GB, 5.0 MB/s, about 9 min 20 s left',
    );
  });
});

const step = (name: string, details: Record<string, unknown>, other: Partial<PendingStep> = {}): PendingStep => ({
  ...{ id: name, name, attempt: 1, failure: null, details },
  ...other,
});

describe('what pending steps tell', () => {
  const LANES = [
    step('copyTables', { tables: 2, bytes: 900_000_000, current: 'public.orders' }, { id: '1' }),
    step('copyTables', { tables: 2, bytes: 500_000_000, current: 'public.orders' }, { id: '2' }),
    step('copyTables', { tables: 0, bytes: 0, current: null }, { id: '3' }),
    step('copyLargeObjects', { objects: 5, total: 20, bytes: 7 }),
    step('keepSnapshot', { holderPid: 1, snapshotAgeSeconds: 3 }),
  ];

  test('is newer than the last measurement, but never less', () => {
    const seen = withLive(cluster([database('shop'), database('other')]), new Map([['shop', LANES]]), null);
    expect(seen.databases[0]).toMatchObject({
      tables: { copied: 4, total: 7 },
      bytes: { copied: 1_400_000_000, total: 4_000_000_000 },
    });
    expect(seen.databases[1]).toEqual(database('other'));
    const all = database('shop', { tables: { copied: 6, total: 7 }, bytes: { copied: 9, total: 10 } });
    expect(withLive(cluster([all]), new Map([['shop', LANES]]), null).databases[0]).toMatchObject({
      tables: { copied: 6, total: 7 },
      bytes: { copied: 10, total: 10 },
    });
  });

  test('is not forgotten when a lane ends, until the next phase', () => {
    const shop = (other = {}) => cluster([database('shop', other)]);
    const before = withLive(shop(), new Map([['shop', LANES]]), null);
    const seen = (other = {}) => withLive(shop(other), new Map(), before).databases[0]?.bytes.copied;
    expect(seen()).toBe(1_400_000_000);
    expect(seen({ phase: 'preparing' })).toBe(1_200_000_000);
  });

  test('is the lag, where one waits for it', () => {
    const waits = database('shop', { phase: 'catching-up', lagBytes: 5 });
    const lag = (name: string, details: Record<string, unknown>) =>
      withLive(cluster([waits]), new Map([['shop', [step(name, details)]]]), null).databases[0]?.lagBytes;
    expect(lag('waitForCatchUp', { lagBytes: 7, waitingFor: '' })).toBe(7);
    expect(lag('waitForDrain', { markLsn: '0/1', bytesLeft: 0 })).toBe(0);
    expect(lag('waitForCatchUp', { lagBytes: null })).toBe(5);
  });

  test('is what they work on, wait for, and failed at', () =>
    expect(
      liveOf(
        [
          ...LANES,
          step('verifyCopied', { current: 'public.orders' }),
          step('measure', {}, { attempt: 4, failure: 'Refused.' }),
        ],
        3,
      ),
    ).toEqual({
      bytesPerSecond: 3,
      current: ['public.orders', 'large objects (5 of 20)', 'comparing public.orders'],
      waitingFor: '',
      retrying: [{ step: 'measure', attempt: 4, failure: 'Refused.' }],
    }));

  test('is nothing where it is not what a worker of ours writes', () => {
    const odd = [
      step('copyTables', { tables: '2', bytes: NaN, current: { toString: 'x' }, waitingFor: 5, lagBytes: 'y' }),
      step('copyLargeObjects', { objects: [], total: 'many' }),
    ];
    expect(liveOf(odd, null)).toEqual(live());
    expect(withLive(cluster([database('shop')]), new Map([['shop', odd]]), null)).toEqual(cluster([database('shop')]));
  });
});

describe('the rate of a copy', () => {
  const lane = (id: string, bytes: number) => ({ id, bytes });

  test('is known after some seconds, and is that of the last half minute', () => {
    const meter = new RateMeter();
    expect(meter.add([lane('1', 5_000)], 0)).toBe(null);
    expect(meter.add([lane('1', 8_000)], 3_000)).toBe(null);
    expect(meter.add([lane('1', 11_000)], 6_000)).toBe(1_000);
    for (let at = 7_000; at <= 60_000; at += 1_000) meter.add([lane('1', 11_000)], at);
    expect(meter.add([lane('1', 11_000)], 61_000)).toBe(0);
  });

  test('stays between two words of a lane, and falls when it is silent for long', () => {
    const meter = new RateMeter();
    meter.add([lane('1', 0)], 0);
    expect(meter.add([lane('1', 10_000)], 10_000)).toBe(1_000);
    expect(meter.add([lane('1', 10_000)], 14_000)).toBe(1_000);
    expect(meter.add([lane('1', 10_000)], 20_000)).toBe(500);
  });

  test('is not that of what was copied before the first look', () => {
    const meter = new RateMeter();
    meter.add([lane('1', 1e12)], 0);
    expect(meter.add([lane('1', 1e12 + 10_000)], 10_000)).toBe(1_000);
  });

  test('goes on when lanes end, begin, or begin anew', () => {
    const meter = new RateMeter();
    meter.add([lane('1', 0), lane('2', 50_000)], 0);
    meter.add([lane('1', 4_000)], 4_000);
    meter.add([lane('1', 6_000), lane('3', 2_000)], 8_000);
    expect(meter.add([lane('1', 1_000), lane('3', 3_000)], 10_000)).toBe(1_000);
  });

  test('ends with the copy', () => {
    const meter = new RateMeter();
    meter.add([lane('1', 0)], 0);
    expect(meter.add([lane('1', 10_000)], 10_000)).toBe(1_000);
    expect(meter.add([], 11_000)).toBe(null);
    expect(meter.add([lane('1', 10_000)], 12_000)).toBe(null);
  });
});

test.each([
  [0, '0 s'],
  [0.04, '0 s'],
  [59.94, '59.9 s'],
  [59.96, '1 min 0 s'],
  [119.7, '2 min 0 s'],
  [3599.6, '1 h 0 min'],
  [90_061, '25 h 1 min'],
])('%d seconds are written as %s', (seconds, text) => expect(formatSeconds(seconds)).toBe(text));

test('every lane is counted once', () =>
  expect(copyLanes([step('copyTables', { bytes: 7 }), step('buildIndexes', { bytes: 9 })])).toEqual([
    { id: 'copyTables', bytes: 7 },
  ]));
