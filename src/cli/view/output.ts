import type { WriteStream } from 'node:tty';
import { moveCursor, clearScreenDown } from 'node:readline';
import { hasEnded } from '../../domain/phase.ts';
import type { ClusterProgress } from '../../domain/progress.ts';
import type { Live } from './progress.ts';
import { progressLine, renderProgress } from './progress.ts';

/** Where progress is shown: redrawn in place on a terminal, a line for each change elsewhere. */
export interface ProgressOutput {
  show(progress: ClusterProgress, live: Live): void;
  /** A sentence above the live view. */
  note(sentence: string): void;
  /** Leaves what is shown, and the terminal as it was. */
  end(): void;
}

export const progressOutput = (stream: NodeJS.WriteStream): ProgressOutput =>
  stream.isTTY ? liveOutput(stream) : lineOutput(stream);

function liveOutput(stream: WriteStream): ProgressOutput {
  let drawn = 0;
  let last: string[] = [];
  const wipe = () => {
    if (drawn === 0) return;
    moveCursor(stream, 0, -drawn);
    clearScreenDown(stream);
    drawn = 0;
  };
  const draw = (lines: string[]) => {
    wipe();
    stream.write(lines.map((line) => `${line}\n`).join(''));
    drawn = lines.length;
    last = lines;
  };
  return {
    show: (progress, live) => draw(renderProgress(progress, live, { columns: stream.columns, rows: stream.rows })),
    note(sentence) {
      wipe();
      stream.write(`${sentence}\n`);
      draw(last);
    },
    end: () => (drawn = 0),
  };
}

/** A log that says nothing for long looks as if nothing happened. */
const SAY_AGAIN_MS = 60_000;

function lineOutput(stream: NodeJS.WriteStream): ProgressOutput {
  const told = new Map<string, { what: string; at: number }>();
  const say = (line: string) => stream.write(`${new Date().toISOString().slice(11, 19)} ${line}\n`);
  return {
    show(progress) {
      for (const database of progress.databases) {
        const { phase, attention } = database;
        const before = told.get(database.database);
        const what = `${phase} ${attention ?? ''}`;
        const now = Date.now();
        const due =
          before === undefined || before.what !== what || (!hasEnded(phase) && now - before.at > SAY_AGAIN_MS);
        if (!due) continue;
        told.set(database.database, { what, at: now });
        say(progressLine(database));
      }
    },
    note: say,
    end: () => undefined,
  };
}
