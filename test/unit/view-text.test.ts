import { describe, expect, test } from 'vitest';
import { pasteable, plain, plainLines, table } from '../../src/cli/view/text.ts';
import { cut, widthOf, wrap } from '../../src/cli/view/width.ts';

describe('names and sentences of a server', () => {
  test.each([
    ['shop', 'shop'],
    ['a  b', 'a  b'],
    ['Größe 数据库 🐘', 'Größe 数据库 🐘'],
    ['two\r\nlines\tand a tab', 'two lines and a tab'],
    ['\x1b[2Jgone\x1b]0;title\x07', '\\u001b[2Jgone\\u001b]0;title\\u0007'],
    ['\u009b31mred', '\\u009b31mred'],
    ['back\b\b\bspace', 'back\\u0008\\u0008\\u0008space'],
    ['\u202egnp.exe', '\\u202egnp.exe'],
    ['sh\u200bop', 'sh\\u200bop'],
    ['sh\u3164op\ufe0f', 'sh\\u3164op\\ufe0f'],
    ['half \ud83d', 'half \\ud83d'],
    ['tag \u{e0041}', 'tag \\u{e0041}'],
  ])('%j is shown as %s', (text, shown) => expect(plain(text)).toBe(shown));

  test('keep their lines where there may be several', () =>
    expect(plainLines('first \x1b\nsecond\r\nthird')).toBe('first \\u001b\nsecond\nthird'));
});

describe('SQL to paste', () => {
  test('is shown exactly as it is', () => {
    const sql = 'ALTER TABLE "my  table" REPLICA IDENTITY FULL;\nDROP INDEX "it\'s"; -- or don\'t';
    expect(pasteable(sql)).toEqual(sql.split('\n'));
  });

  test.each([
    ['an escape sequence', 'DROP TABLE "\x1b[1m";', '-- DROP TABLE "\\u001b[1m";'],
    ['a name that cannot be told from another', 'DROP TABLE "sh\u200bop";', '-- DROP TABLE "sh\\u200bop";'],
    ['a line break in a name', 'DROP TABLE "a\nb";', '-- DROP TABLE "a', '-- b";'],
  ])('with %s does nothing when it is pasted', (_, sql, ...lines) =>
    expect(pasteable(sql)).toEqual(['-- With characters that cannot be shown here; --json has it exactly:', ...lines]),
  );
});

describe('columns', () => {
  test.each([
    ['shop', 4],
    ['数据库', 6],
    ['「カナ」', 8],
    ['ＡＢ', 4],
    ['한글', 4],
    ['🐘', 2],
    ['e\u0301', 1],
    ['', 0],
  ])('%s takes %i', (text, width) => expect(widthOf(text)).toBe(width));

  test('text is cut between characters, to what fits', () => {
    expect(cut('shop', 4)).toBe('shop');
    expect(cut('shopping', 4)).toBe('sho…');
    expect(cut('数据库', 5)).toBe('数据…');
    expect(cut('数据库', 4)).toBe('数…');
    expect(cut('🐘🐘', 3)).toBe('🐘…');
    expect(cut('x', 0)).toBe('');
  });

  test('sentences are broken between words, and longer words anywhere', () => {
    expect(wrap('the quick brown fox', 9)).toEqual(['the quick', 'brown fox']);
    expect(wrap('a 数据库数据库 b', 5)).toEqual(['a', '数据', '库数', '据库', 'b']);
    expect(wrap('', 5)).toEqual(['']);
  });

  test('of a table are as wide as they must be, and numbers end at the right', () =>
    expect(
      table(
        ['NAME', 'ROWS', 'WHAT'],
        [
          ['数据库', '1', 'x'],
          ['a\nb', '12345', ''],
        ],
        ['ROWS'],
      ),
    ).toBe('NAME     ROWS  WHAT\n数据库      1  x\na b     12345'));
});
