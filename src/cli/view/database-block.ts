import { hasEnded } from '../../domain/phase.ts';
import type { DatabaseProgress } from '../../domain/progress.ts';
import { describeBytes, describeLag, describeRate, describeTables, isCopying } from './amounts.ts';
import type { LiveDatabase } from './live.ts';
import { answerCommand } from './next-step.ts';
import { sentences } from './summary.ts';
import { plain } from './text.ts';
import { cut, pad, widthOf, wrap } from './width.ts';

/** What needs a person may take so many lines of the view; the rest is in `pgtransit status`. */
const SENTENCE_LINES = 3;

/** A database in the live view: a line, what it works on below, what needs a person, and how to answer. */
export function databaseBlock(
  id: string,
  database: DatabaseProgress,
  live: LiveDatabase | undefined,
  { nameColumns, width }: { nameColumns: number; width: number },
): string[] {
  const head = `${pad(cut(plain(database.database), nameColumns), nameColumns)}  ${pad(database.phase, 11)}`;
  const lines = versions(database, live).map((parts) => [head, ...parts].join('  '));
  const current = (live?.current ?? []).map(plain).join(', ');
  const answer = answerCommand(id, database);
  return [
    fitting(lines, width),
    ...(current === '' ? [] : [`${' '.repeat(nameColumns + 2)}${current}`]),
    ...sentences(database, live).flatMap((sentence) => marked(sentence, width)),
    ...(answer === null ? [] : [fitting([`    ${answer.command}   ${answer.others}`, `    ${answer.command}`], width)]),
  ];
}

/** The first version that fits, else the last. */
const fitting = (versions: readonly string[], width: number): string =>
  (versions.find((text) => widthOf(text) <= width) ?? versions.at(-1) ?? '').trimEnd();

/** What is said beside name and phase, the longest first. */
function versions(database: DatabaseProgress, live: LiveDatabase | undefined): string[][] {
  const { bytes, phase, message } = database;
  const waitingFor = live === undefined || live.waitingFor === '' ? [] : [`waits for ${plain(live.waitingFor)}`];
  if (hasEnded(phase)) return [phase === 'cancelled' ? [plain(message)] : []];
  if (!isCopying(database)) {
    const lag = describeLag(database);
    if (lag !== '') return [[lag, ...waitingFor]];
    return [waitingFor.length > 0 ? waitingFor : [plain(message)]];
  }
  const part = bytes.total === 0 ? 1 : bytes.copied / bytes.total;
  const percent = `${Math.floor(part * 100)}%`;
  const rate = describeRate(database, live?.bytesPerSecond ?? null);
  return [
    [bar(part, 20), describeTables(database), describeBytes(database), ...rate],
    [bar(part, 10), describeBytes(database), ...rate],
    [bar(part, 10), percent, ...rate],
    [percent, ...rate],
  ];
}

/** Full only when everything is there. */
function bar(part: number, columns: number): string {
  const full = Math.floor(Math.min(1, Math.max(0, part)) * columns);
  return `[${'#'.repeat(full)}${'.'.repeat(columns - full)}]`;
}

/** A sentence for whoever looks, set off from the rest. */
export function marked(sentence: string, width: number): string[] {
  const lines = wrap(sentence, Math.max(10, width - 6));
  const shown = lines.slice(0, SENTENCE_LINES);
  if (lines.length > shown.length) shown.push(`${shown.pop() ?? ''} …`);
  return shown.map((line, index) => `${index === 0 ? '  ! ' : '    '}${line}`);
}
