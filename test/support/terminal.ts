import { widthOf } from '../../src/cli/view/width.ts';

/** Starts an escape sequence. */
export const ESC = String.fromCharCode(27);

const TOKEN = new RegExp(`${ESC}\\[[\\d;?]*[a-zA-Z]|[^]`, 'gu');

/** What a terminal of this size shows, and what has scrolled out of it, after it was written to. */
export interface FakeTerminal {
  columns: number;
  rows: number;
  write(text: string): boolean;
  /** Lines from the first one ever written to the cursor. */
  lines(): string[];
  /** How often it was written to. */
  writes: number;
}

/**
 * Understands what our view needs and nothing else: any other escape sequence is an error. Lines that are too long
 * are broken, as terminals do.
 */
export function fakeTerminal(columns: number, rows: number): FakeTerminal {
  const lines: string[] = [''];
  let line = 0;
  let column = 0;
  const newLine = () => {
    line += 1;
    if (line === lines.length) lines.push('');
    column = 0;
  };
  const put = (character: string) => {
    // The view writes lines from their beginning, so where the cursor is can be counted in characters.
    if (widthOf((lines[line] ?? '').slice(0, column) + character) > terminal.columns) newLine();
    const old = lines[line] ?? '';
    lines[line] = old.slice(0, column) + character + old.slice(column + character.length);
    column += character.length;
  };
  const obey = (escape: string) => {
    const [, count = '', letter = ''] = /^\[(\d*)([AKJ])$/.exec(escape.slice(1)) ?? [];
    if (letter === 'A') line = Math.max(0, lines.length - terminal.rows, line - Number(count));
    else if (letter === 'K') lines[line] = (lines[line] ?? '').slice(0, column);
    else if (letter === 'J') {
      lines[line] = (lines[line] ?? '').slice(0, column);
      lines.length = line + 1;
    } else throw new Error(`An escape sequence got through: ${JSON.stringify(escape)}`);
  };
  const terminal: FakeTerminal = {
    columns,
    rows,
    writes: 0,
    write(text) {
      terminal.writes += 1;
      for (const [token] of text.matchAll(TOKEN)) {
        if (token === '\n') newLine();
        else if (token === '\r') column = 0;
        else if (/^\p{Cc}/u.test(token)) obey(token);
        else put(token);
      }
      return true;
    },
    lines: () => lines.slice(0, line + 1),
  };
  return terminal;
}
