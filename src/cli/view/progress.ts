import { formatBytes } from '../../domain/format.ts';
import { hasEnded } from '../../domain/phase.ts';
import type { ClusterProgress, DatabaseProgress } from '../../domain/progress.ts';
import { describeAmounts, formatSeconds } from './amounts.ts';
import { cut, pad, plain, widthOf } from './text.ts';

/** What pending steps tell beyond the last measurement. */
export interface LiveDatabase {
  /** Bytes copied a second; null while nothing is being copied. */
  bytesPerSecond: number | null;
  /** Tables and indexes that are being worked on. */
  current: string[];
}

export type Live = ReadonlyMap<string, LiveDatabase>;

const BAR = 20;

/** The lines of the live view: a heading, a line a database with what it works on below it, and what needs a person. */
export function renderProgress(
  progress: ClusterProgress,
  live: Live,
  { columns, rows }: { columns: number; rows: number },
): string[] {
  const busy = (database: DatabaseProgress) => (database.attention !== null ? 0 : hasEnded(database.phase) ? 2 : 1);
  const databases = [...progress.databases].sort((a, b) => busy(a) - busy(b));
  const name = Math.min(30, Math.max(8, ...databases.map(({ database }) => widthOf(plain(database)))));
  const blocks = databases.map((database) => {
    const { current = [] } = live.get(database.database) ?? {};
    const working = current.length === 0 ? [] : [`${' '.repeat(name + 2)}${current.map(plain).join(', ')}`];
    return [renderDatabase(database, live.get(database.database), name), ...working, ...attention(database)];
  });
  const lines = [`${progress.id}: ${progress.phase}`];
  const room = rows - 2;
  for (const [index, block] of blocks.entries()) {
    if (lines.length + block.length > room) {
      lines.push(`… and ${blocks.length - index} more`);
      break;
    }
    lines.push(...block);
  }
  return lines.map((line) => cut(line, columns - 1));
}

const attention = ({ attention }: DatabaseProgress): string[] =>
  attention === null ? [] : [`  ! ${plain(attention)}`];

function renderDatabase(database: DatabaseProgress, live: LiveDatabase | undefined, width: number): string {
  const { bytes, phase } = database;
  const parts = [pad(cut(plain(database.database), width), width), pad(phase, 11)];
  const copies = phase === 'copying' || phase === 'indexing';
  if (copies) parts.push(bar(bytes.total === 0 ? 1 : bytes.copied / bytes.total));
  const amounts = describeAmounts(database);
  if (amounts !== '') parts.push(amounts);
  const rate = live?.bytesPerSecond ?? null;
  if (copies && rate !== null && rate > 0) {
    parts.push(`${formatBytes(rate)}/s`);
    const left = bytes.total - bytes.copied;
    if (left > 0) parts.push(`${formatSeconds(Math.round(left / rate))} left`);
  }
  return parts.join('  ');
}

function bar(part: number): string {
  const full = Math.round(Math.min(1, Math.max(0, part)) * BAR);
  return `[${'#'.repeat(full)}${'.'.repeat(BAR - full)}]`;
}

/** One line a database, for logs: what is worth a line when it has changed. */
export const progressLine = (database: DatabaseProgress): string =>
  [
    `${plain(database.database)}: ${database.phase}`,
    describeAmounts(database),
    ...attention(database).map((l) => l.trim()),
  ]
    .filter((part) => part !== '')
    .join(', ');
