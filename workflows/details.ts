import type { Measurement } from '../src/domain/migration.ts';
import type { ClusterProgress, DatabaseProgress } from '../src/domain/progress.ts';
import { formatBytes } from '../src/domain/format.ts';
import type { Phase } from '../src/domain/phase.ts';
import { readinessTable } from '../src/domain/readiness.ts';

/** What the person who looks at this page can or must do now. */
const NEXT: Record<Phase, string> = {
  validating: 'Nothing: both servers are being inspected, and nothing has been changed.',
  preparing: 'Nothing: the database, its snapshot and its schema are being set up.',
  copying: 'Nothing: rows are being copied while the source stays in use.',
  indexing: 'Nothing: the last indexes are being built.',
  subscribing: 'Nothing: constraints are being added and the replication begins.',
  'catching-up': 'Nothing: the target catches up with what was written during the copy.',
  streaming:
    'When you are ready to cut over: send the signal `stopReplication`. Without a fence, stop the writes to the source first.',
  stopping: 'Nothing: the target gets the last changes and the sequences.',
  finishing: 'Nothing: the last settings are being restored.',
  reversing:
    'The target serves, and the source follows it. When you are sure, send the update `complete`; to go back, `rollback`.',
  'rolling-back': 'Nothing: the source gets the last changes and the sequences.',
  done: 'Point the application to the target.',
  'rolled-back': 'Point the application back to the source, which has everything. The target is read-only.',
  failed: 'Read the failure below. Everything on the source was undone unless it says otherwise.',
  cancelled: 'Everything on the source was undone; the database on the target is kept.',
};

/** A name or sentence from outside, inert in Markdown and in a table's cell. */
const cell = (text: string): string => text.replace(/[\\`*_{}[\]<>|#]/g, '\\$&').replace(/\s+/g, ' ');

/** The Web UI draws a table without any space between its columns, and trims ordinary spaces. */
const row = (cells: readonly string[]): string => `| ${cells.join('\u00a0\u00a0\u00a0 | ')} |`;

/** Said on both pages: a parked database stands on its own and in its parent's list. */
const RESOLVE = 'Mend what is named above. A parked step goes on with the update `resolve`.';

const lag = (bytes: number | null): string => (bytes === null ? '–' : formatBytes(bytes));

/** Then the source follows the target. */
const BACK: readonly Phase[] = ['reversing', 'rolling-back'];

export function databaseDetails(progress: DatabaseProgress, measured: Measurement | null): string {
  const rows = [
    ['Phase', progress.phase],
    ['Method', progress.method ?? 'not decided yet'],
    ['Tables', `${progress.tables.copied} of ${progress.tables.total}`],
    ['Copied', `${formatBytes(progress.bytes.copied)} of ${formatBytes(progress.bytes.total)}`],
    ['Indexes', measured?.indexes === undefined ? '–' : `${measured.indexes.built} of ${measured.indexes.total}`],
    ['Lag', lag(progress.lagBytes)],
    [`WAL kept on the ${BACK.includes(progress.phase) ? 'target' : 'source'}`, lag(progress.retainedBytes)],
    ['Now', progress.message],
  ] as const;
  const table = ['| | |', '|---|---|', ...rows.map(([name, value]) => row([name, cell(value)]))].join('\n');
  const attention = progress.attention === null ? '' : `**Needs you:** ${cell(progress.attention)}\n\n`;
  const next = `**What to do next:** ${progress.attention === null ? NEXT[progress.phase] : RESOLVE}`;
  const readiness = progress.readiness === null ? '' : `\n\n${readinessTable(progress.readiness)}`;
  return `${attention}${table}\n\n${next}${readiness}`;
}

/** More than this many databases would not fit a page; the query has all. */
const MAX_ROWS = 50;

export function clusterDetails(progress: ClusterProgress): string {
  const shown = progress.databases.slice(0, MAX_ROWS);
  const rows = shown.map((d) =>
    row([
      cell(d.database),
      d.phase,
      `${formatBytes(d.bytes.copied)} of ${formatBytes(d.bytes.total)}`,
      lag(d.lagBytes),
      cell(d.attention ?? 'no'),
    ]),
  );
  const more = progress.databases.length - shown.length;
  const header = row(['Database', 'Phase', 'Copied', 'Lag', 'Needs you']);
  const table = [header, '|:--|:--|:--|:--|:--|', ...rows].join('\n');
  const rest = more > 0 ? `\n\nAnd ${more} more databases.` : '';
  return `${table}${rest}\n\n**What to do next:** ${progress.attention === null ? NEXT[progress.phase] : RESOLVE}`;
}
