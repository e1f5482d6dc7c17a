import { formatBytes } from '../../domain/format.ts';
import { LIMITS } from '../../domain/limits.ts';
import { hasEnded, PHASES } from '../../domain/phase.ts';
import type { Phase } from '../../domain/phase.ts';
import type { ClusterProgress, DatabaseProgress } from '../../domain/progress.ts';
import { describeBytes, describeLag, describeRate, describeTables, isCopying } from './amounts.ts';
import type { Live, LiveDatabase } from './live.ts';
import { plain } from './text.ts';

/** E.g. `copying, 2 of 9 databases done, 12.1 GB of 40.3 GB`. */
export function summary({ phase, databases }: ClusterProgress): string {
  const done = databases.filter((database) => database.phase === 'done').length;
  const parts: string[] = [phase];
  if (databases.length > 1) parts.push(`${done} of ${databases.length} databases done`);
  if (databases.some(isCopying)) parts.push(describeBytes(sumOfBytes(databases)));
  return parts.join(', ');
}

/** E.g. `3 copying, 9 done`. */
export function countPhases(databases: readonly DatabaseProgress[]): string {
  const count = (phase: Phase) => databases.filter((database) => database.phase === phase).length;
  return PHASES.filter((phase) => count(phase) > 0)
    .map((phase) => `${count(phase)} ${phase}`)
    .join(', ');
}

/** E.g. `! 2 need you`. */
export function needYou(databases: readonly DatabaseProgress[]): string[] {
  const count = databases.filter(({ attention }) => attention !== null).length;
  return count === 0 ? [] : [`! ${count} ${count === 1 ? 'needs' : 'need'} you`];
}

function sumOfBytes(databases: readonly DatabaseProgress[]): Pick<DatabaseProgress, 'bytes'> {
  const bytes = { copied: 0, total: 0 };
  for (const database of databases) {
    bytes.copied += hasAllRows(database) ? database.bytes.total : database.bytes.copied;
    bytes.total += database.bytes.total;
  }
  return { bytes };
}

const hasAllRows = ({ phase }: DatabaseProgress): boolean =>
  phase !== 'failed' && phase !== 'cancelled' && PHASES.indexOf(phase) > PHASES.indexOf('copying');

/** What needs a person, or will if it goes on like this. */
export const sentences = ({ attention, phase, message }: DatabaseProgress, live: LiveDatabase | undefined): string[] =>
  [plain(attention ?? (phase === 'failed' ? message : '')), ...retries(live)].filter((sentence) => sentence !== '');

export const retries = (live: LiveDatabase | undefined): string[] =>
  (live?.retrying ?? []).map(({ step, attempt, failure }) =>
    plain(`${step} failed, and is tried again by itself (attempt ${attempt}): ${failure}`),
  );

/** What keeps the migration itself, which has no database to say it beside. */
export const troubles = (whole: LiveDatabase | undefined): string[] => [
  ...retries(whole),
  ...(whole === undefined || whole.waitingFor === ''
    ? []
    : [plain(`Trying again for up to ${LIMITS.reachServerMs / 1000} s: ${whole.waitingFor}`)]),
];

/** One database on one line. */
export const progressLine = (database: DatabaseProgress, live?: LiveDatabase): string =>
  [
    `${plain(database.database)}: ${database.phase}${database.phase === 'cancelled' ? `. ${plain(database.message)}` : ''}`,
    ...(isCopying(database)
      ? [describeTables(database), describeBytes(database), ...describeRate(database, live?.bytesPerSecond ?? null)]
      : [describeLag(database)]),
    ...sentences(database, live).map((sentence) => `! ${sentence}`),
  ]
    .filter((part) => part !== '')
    .join(', ');

/** The whole migration on one line, for when nothing has changed. */
export function stillLine({ phase, databases }: ClusterProgress, live: Live): string {
  const open = databases.filter(({ phase }) => !hasEnded(phase));
  const [only] = open;
  if (only !== undefined && open.length === 1) return progressLine(only, live.get(only.database));
  const copying = open.filter(isCopying);
  const rate = [...live.values()].reduce((sum, { bytesPerSecond }) => sum + (bytesPerSecond ?? 0), 0);
  const lag = Math.max(0, ...open.map(({ lagBytes }) => lagBytes ?? 0));
  return [
    databases.length === 0 ? phase : countPhases(databases),
    ...(copying.length === 0 ? [] : [describeBytes(sumOfBytes(copying))]),
    ...(rate < 1 ? [] : [`${formatBytes(Math.round(rate))}/s`]),
    ...(lag === 0 ? [] : [`at most ${formatBytes(lag)} behind`]),
    ...needYou(open),
  ].join(', ');
}
