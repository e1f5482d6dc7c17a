import { hasEnded } from '../../domain/phase.ts';
import type { ClusterProgress, DatabaseProgress } from '../../domain/progress.ts';
import { formatSeconds } from './amounts.ts';
import { databaseBlock, marked } from './database-block.ts';
import type { Live } from './live.ts';
import { WHOLE } from './live.ts';
import { nextStep } from './next-step.ts';
import { countPhases, needYou, summary, troubles } from './summary.ts';
import { plain } from './text.ts';
import { cut, widthOf } from './width.ts';

export interface Size {
  columns: number;
  rows: number;
}

/** Longer names of databases are cut. */
const MOST_NAME_COLUMNS = 30;
/** Numbers older than this are said to be old. */
const STALE_MS = 60_000;

/**
 * The lines of the live view: a heading, the databases, and what to do next. They leave a column and a line free, for
 * the cursor: no terminal then breaks a line or scrolls.
 */
export function renderProgress(progress: ClusterProgress, live: Live, { columns, rows }: Size, now: Date): string[] {
  const width = Math.max(1, columns - 1);
  const height = Math.max(1, rows - 1);
  const databases = [...progress.databases].sort((a, b) => rank(a) - rank(b));
  const nameColumns = Math.min(
    MOST_NAME_COLUMNS,
    Math.max(8, ...databases.map(({ database }) => widthOf(plain(database)))),
  );
  const blocks = databases.map((database) =>
    databaseBlock(progress.id, database, live.get(database.database), { nameColumns, width }),
  );
  const notices = troubles(live.get(WHOLE)).flatMap((sentence) => marked(sentence, width));
  const next = nextStep(progress);
  const footer = height > next.length + 3 ? next : [];
  const body = fit(blocks, databases, height - 1 - notices.length - footer.length);
  return [heading(progress, now), ...notices, ...body, ...footer].slice(0, height).map((line) => cut(line, width));
}

/** What a person must look at is first, then what moves. */
function rank({ attention, phase }: DatabaseProgress): number {
  if (attention !== null) return 0;
  if (phase === 'failed') return 1;
  if (hasEnded(phase)) return 5;
  if (phase === 'streaming') return 4;
  return phase === 'validating' || phase === 'preparing' ? 3 : 2;
}

function heading(progress: ClusterProgress, now: Date): string {
  const age = now.getTime() - Date.parse(progress.measuredAt);
  const isOld = age > STALE_MS && !hasEnded(progress.phase);
  return `${plain(progress.id)}: ${summary(progress)}${isOld ? `, as of ${formatSeconds(age / 1000)} ago` : ''}`;
}

/** As many databases as there is room for, and how many more there are. */
function fit(blocks: readonly string[][], databases: readonly DatabaseProgress[], room: number): string[] {
  const lines: string[] = [];
  for (const [index, block] of blocks.entries()) {
    const isLast = index === blocks.length - 1;
    const left = room - lines.length - (isLast ? 0 : 1);
    if (block.length > left && index > 0)
      return [...lines, `… and ${blocks.length - index} more: ${rest(databases.slice(index))}`];
    lines.push(...block.slice(0, Math.max(1, left)));
  }
  return lines;
}

const rest = (databases: readonly DatabaseProgress[]): string =>
  [...needYou(databases), countPhases(databases)].join(', ');
