/**
 * How many columns a text takes on a terminal. Unicode's East Asian Width (wide, full-width), and emoji; where
 * terminals differ, the wider: a line that is too long would break the view, one that is too short does not show.
 */
const WIDE =
  /[\u1100-\u115f\u2329\u232a\u2630-\u2637\u268a-\u268f\u2e80-\u303e\u3041-\ua4cf\ua960-\ua97f\uac00-\ud7a3\uf900-\ufaff\ufe10-\ufe19\ufe30-\ufe6f\uff01-\uff60\uffe0-\uffe6\u{16fe0}-\u{18dff}\u{1aff0}-\u{1b2ff}\u{1d300}-\u{1d376}\u{1f200}-\u{1f2ff}\u{1f300}-\u{1faff}\u{20000}-\u{3ffff}]|\p{Emoji_Presentation}/u;

/** Accents and the like stand on the character before them. */
const COMBINING = /[\p{Mn}\p{Me}]/u;

export function widthOf(text: string): number {
  let width = 0;
  for (const character of text) width += COMBINING.test(character) ? 0 : WIDE.test(character) ? 2 : 1;
  return width;
}

/** At most `width` columns, with an ellipsis where something was cut off. */
export function cut(text: string, width: number): string {
  if (widthOf(text) <= width) return text;
  return width < 1 ? '' : `${first(text, width - 1)}…`;
}

export const pad = (text: string, width: number): string => text + spaces(text, width);

export const padStart = (text: string, width: number): string => spaces(text, width) + text;

const spaces = (text: string, width: number): string => ' '.repeat(Math.max(0, width - widthOf(text)));

/** Lines of at most `width` columns, broken between words where that is possible. */
export function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (let word of text.split(' ')) {
    if (line !== '' && widthOf(`${line} ${word}`) > width) {
      lines.push(line);
      line = '';
    }
    while (widthOf(word) > width) {
      const part = first(word, Math.max(2, width));
      lines.push(part);
      word = word.slice(part.length);
    }
    line = line === '' ? word : `${line} ${word}`;
  }
  return [...lines, line];
}

/** The same below something else: two columns in, and what follows the first line by `further`. */
export const indented = (text: string, columns: number, further = '    '): string[] =>
  wrap(text, Math.max(20, columns - further.length)).map((line, index) => `${index === 0 ? '  ' : further}${line}`);

/** As much of the beginning as fits. */
function first(text: string, width: number): string {
  let end = 0;
  let used = 0;
  for (const character of text) {
    used += widthOf(character);
    if (used > width) break;
    end += character.length;
  }
  return text.slice(0, end);
}
