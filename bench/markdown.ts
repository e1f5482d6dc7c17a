import type { LoadedSet } from './data.ts';
import type { MethodName } from './methods/index.ts';
import type { Summary } from './report.ts';

export interface SetReport {
  set: LoadedSet;
  summaries: readonly Summary[];
}

const seconds = (value: number): string => value.toFixed(value < 10 ? 2 : 1);
const megabytes = (bytes: number): string => `${Math.round(bytes / 1e6)} MB`;

type Row = readonly string[];

/** Padded, so that it reads well in a terminal too. All columns but the first hold numbers. */
function table([head, ...rows]: readonly [Row, ...Row[]]): string {
  const widths = head.map((_, column) => Math.max(...[head, ...rows].map((row) => row[column]?.length ?? 0)));
  const line = (row: Row): string =>
    `| ${row.map((cell, column) => (column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0))).join(' | ')} |`;
  const rule = widths.map((width, column) => (column === 0 ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`));
  return [line(head), `| ${rule.join(' | ')} |`, ...rows.map(line)].join('\n');
}

/** What somebody reads who asks which is faster, and by how much. */
export function speedTable({ summaries }: SetReport, title: (method: MethodName) => string): string {
  const rows = summaries.map((summary): Row => {
    if (summary.seconds === null) return [title(summary.method), 'failed', '', '', ''];
    const { median, least, most } = summary.seconds;
    const cpu = seconds(summary.serverCpuSeconds ?? 0);
    const ratio = summary.ratio === null ? '' : summary.ratio.toFixed(2);
    return [title(summary.method), seconds(median), `${seconds(least)} to ${seconds(most)}`, ratio, cpu];
  });
  return table([['method', 'seconds', 'from … to', 'ratio', 'CPU s of the servers'], ...rows]);
}

/** Where pgtransit's time went, and the limit's. */
export function phasesList({ summaries }: SetReport): string {
  const rows = summaries
    .filter(({ phases }) => Object.keys(phases).length > 0)
    .map(({ method, phases }): Row => {
      const parts = Object.entries(phases)
        .filter(([, spent]) => spent >= 0.005)
        .map(([name, spent]) => `${name} ${seconds(spent)}`);
      return [method, parts.join(', ')];
    });
  return rows.map(([method = '', parts = '']) => `- \`${method}\`: ${parts}`).join('\n');
}

/** What pgtransit's own process cost. */
export function nodeTable({ summaries }: SetReport): string {
  const rows = summaries
    .filter(({ nodeCpuSeconds }) => nodeCpuSeconds !== null)
    .map(({ method, nodeCpuSeconds, nodeCpuSecondsPerGb, peakMemoryBytes }): Row => [
      method,
      seconds(nodeCpuSeconds ?? 0),
      seconds(nodeCpuSecondsPerGb ?? 0),
      peakMemoryBytes === null ? '' : megabytes(peakMemoryBytes),
    ]);
  return rows.length === 0 ? '' : table([['process', 'CPU seconds', 'CPU s per GB', 'peak memory'], ...rows]);
}

export function setHeading({ set }: SetReport): string {
  const share = set.tables > 1 && set.biggest >= 0.1 ? `, ${Math.round(set.biggest * 100)} % of it in one` : '';
  const tables = set.tables === 1 ? '1 table' : `${set.tables} tables`;
  return `${set.name}: ${megabytes(set.bytes)} in ${tables}${share}, ${set.indexes} indexes with those of keys`;
}

export function markdown(
  machine: readonly string[],
  sets: readonly SetReport[],
  title: (method: MethodName) => string,
): string {
  const parts = sets.flatMap((report) => {
    const failures = report.summaries.flatMap(({ method, failure }) =>
      failure === null ? [] : [`${method}: ${failure}`],
    );
    return [
      `## ${setHeading(report)}`,
      speedTable(report, title),
      ...failures.map((failure) => `Failed: ${failure}`),
      `Where the time went, in seconds:\n\n${phasesList(report)}`,
      nodeTable(report),
    ];
  });
  return `${['# Benchmark', machine.join(' '), ...parts].filter((part) => part !== '').join('\n\n')}\n`;
}
