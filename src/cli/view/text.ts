import { pad, padStart, widthOf } from './width.ts';

/**
 * What a terminal would obey or not show: control characters, marks that turn the direction of writing, joiners,
 * halves of characters. Joined emoji come apart by this; terminals do not agree about how wide those are.
 */
const UNSEEN = /[\p{C}\p{Default_Ignorable_Code_Point}\u2028\u2029]/gu;

const asEscape = (character: string): string => {
  const hex = (character.codePointAt(0) ?? 0).toString(16);
  return hex.length > 4 ? `\\u{${hex}}` : `\\u${hex.padStart(4, '0')}`;
};

/**
 * Names and sentences of a server, on one line, without anything that a terminal would obey: they may come from who
 * wishes us ill. What cannot be seen is written as an escape, so that names that differ look different.
 */
export const plain = (text: string): string =>
  text
    .replace(/\s*[\t\n\v\f\r\u0085\u2028\u2029]\s*/g, ' ')
    .replace(UNSEEN, asEscape)
    .trim();

/** The same for text of several lines. */
export const plainLines = (text: string): string => text.split(/\r?\n/).map(plain).join('\n');

/** Lines that can be pasted: exactly what they should be, or comments that say where to find that. */
export function pasteable(sql: string): string[] {
  const lines = sql.split('\n').map((line) => line.trimEnd());
  const quoted = sql.match(/"[^"]*"|'[^']*'|--[^\n]*/g) ?? [];
  // A name with a line break in it would be another name once it is indented.
  const isExact = lines.every((line) => line.search(UNSEEN) < 0) && !quoted.some((token) => token.includes('\n'));
  if (isExact) return lines;
  return [
    '-- With characters that cannot be shown here; --json has it exactly:',
    ...lines.map((line) => `-- ${plain(line)}`),
  ];
}

/** Columns as wide as their widest cell; those in `right` (numbers) end at their right edge. */
export function table(
  header: readonly string[],
  rows: readonly (readonly string[])[],
  right: readonly string[] = [],
): string {
  const cells = [header, ...rows].map((row) => row.map(plain));
  const widths = header.map((_, column) => Math.max(...cells.map((row) => widthOf(row[column] ?? ''))));
  const fill = header.map((title) => (right.includes(title) ? padStart : pad));
  return cells
    .map((row) =>
      row
        .map((cell, column) => (fill[column] ?? pad)(cell, widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}
