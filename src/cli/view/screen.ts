import type { WriteStream } from 'node:tty';
import { widthOf } from './width.ts';

export type Terminal = Pick<WriteStream, 'write' | 'columns' | 'rows'>;

/**
 * Answers how to draw lines at the end of a terminal's output again in place. A drawing is one write, which overwrites
 * instead of wiping, so that nothing flickers. No mode of the terminal is changed: nothing has to be restored, however
 * this process ends, and what was shown last stays.
 */
export function screenOn(terminal: Terminal): (lines: readonly string[]) => void {
  let drawn: readonly string[] = [];
  return (lines) => {
    const { columns } = sizeOf(terminal);
    // Since the last drawing the terminal may have become narrower, and have broken lines.
    const height = drawn.reduce((sum, line) => sum + Math.max(1, Math.ceil(widthOf(line) / columns)), 0);
    const toTop = height === 0 ? '' : `\x1b[${height}A\r`;
    terminal.write(`${toTop}${lines.map((line) => `${line}\x1b[K\n`).join('')}\x1b[J`);
    drawn = lines;
  };
}

/** A pseudo terminal may not know its size. */
export const sizeOf = ({ columns, rows }: Pick<Terminal, 'columns' | 'rows'>): { columns: number; rows: number } => ({
  columns: columns > 0 ? columns : 80,
  rows: rows > 0 ? rows : 24,
});
