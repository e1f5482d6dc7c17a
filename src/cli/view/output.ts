import process from 'node:process';
import type { ClusterProgress } from '../../domain/progress.ts';
import { hasEnded } from '../../domain/phase.ts';
import { formatSeconds } from './amounts.ts';
import type { Live, LiveDatabase } from './live.ts';
import { WHOLE } from './live.ts';
import { renderProgress } from './progress.ts';
import type { Terminal } from './screen.ts';
import { screenOn, sizeOf } from './screen.ts';
import { progressLine, stillLine, troubles } from './summary.ts';
import { plain } from './text.ts';
import { wrap } from './width.ts';

/** Where progress is shown: redrawn in place on a terminal, a line for each change elsewhere. */
export interface ProgressOutput {
  show(progress: ClusterProgress, live: Live): void;
  /** There is no news, and why; to be called again and again until there is. `since`: of the last news. */
  away(reason: string, since: Date): void;
}

/** A log that says nothing for this long looks as if nothing happened. */
const SAY_AGAIN_MS = 60_000;

export function progressOutput(stream: NodeJS.WriteStream): ProgressOutput {
  const { TERM: term, PGTRANSIT_DEBUG: debug } = process.env;
  // With PGTRANSIT_DEBUG the log goes to the terminal too: a view would be drawn over it.
  return stream.isTTY && term !== 'dumb' && debug !== '1' ? liveOutput(stream) : lineOutput(stream);
}

const noNews = (reason: string, since: Date): string =>
  `! No news from Temporal for ${formatSeconds(Math.round((Date.now() - since.getTime()) / 1000))}: ${plain(reason)}. Waiting for it.`;

export function liveOutput(terminal: Terminal): ProgressOutput {
  const draw = screenOn(terminal);
  let last: (now: Date) => string[] = () => [];
  return {
    show(progress, live) {
      last = (now) => renderProgress(progress, live, sizeOf(terminal), now);
      draw(last(new Date()));
    },
    away(reason, since) {
      const { columns, rows } = sizeOf(terminal);
      const notice = wrap(noNews(reason, since), columns - 1).slice(0, Math.max(1, rows - 1));
      draw([...last(new Date()).slice(0, rows - 1 - notice.length), ...notice]);
    },
  };
}

export function lineOutput(stream: Pick<NodeJS.WriteStream, 'write'>): ProgressOutput {
  const told = new Map<string, string>();
  const toldFailures = new Set<string>();
  let saidAt = 0;
  let isAway = false;
  const say = (line: string) => {
    saidAt = Date.now();
    stream.write(`${new Date(saidAt).toISOString().slice(11, 19)} ${line}\n`);
  };
  // A step that is tried again and again for one reason is worth one line.
  const hasNewFailure = (name: string, steps: LiveDatabase | undefined): boolean => {
    const failures = (steps?.retrying ?? []).map(({ step, failure }) => `${name}/${step}: ${failure}`);
    // A database's waits are the way of things; the migration itself waits for a server that does not answer.
    if (name === WHOLE && steps !== undefined && steps.waitingFor !== '') failures.push(steps.waitingFor);
    const isNew = failures.some((failure) => !toldFailures.has(failure));
    for (const failure of failures) toldFailures.add(failure);
    return isNew;
  };
  const isDue = () => Date.now() - saidAt >= SAY_AGAIN_MS;
  return {
    show(progress, live) {
      if (isAway) say('There is news again.');
      isAway = false;
      const whole = live.get(WHOLE);
      if (hasNewFailure(WHOLE, whole)) for (const sentence of troubles(whole)) say(`! ${sentence}`);
      for (const database of progress.databases) {
        const steps = live.get(database.database);
        const what = `${database.phase} ${database.attention ?? ''}`;
        if (!hasNewFailure(database.database, steps) && told.get(database.database) === what) continue;
        told.set(database.database, what);
        say(progressLine(database, steps));
      }
      if (isDue() && !hasEnded(progress.phase)) say(stillLine(progress, live));
    },
    away(reason, since) {
      if (isAway && !isDue()) return;
      isAway = true;
      say(noNews(reason, since));
    },
  };
}
