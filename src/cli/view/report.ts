import { formatBytes } from '../../domain/format.ts';
import type { ClusterProgress, ClusterReport, DatabaseReport, RoleReport } from '../../domain/progress.ts';
import type { Finding } from '../../domain/finding.ts';
import { formatSeconds } from './amounts.ts';
import { plain, table } from './text.ts';
import { indented, widthOf } from './width.ts';

/** What a command answers with `--json` and writes into `--report-file`. */
export interface Answer {
  id: string;
  status: 'done' | 'running' | 'failed' | 'cancelled' | 'terminated' | 'parked' | 'valid' | 'refused';
  message: string;
  exitCode: number;
  validation: Finding[] | null;
  roles: RoleReport[];
  databases: DatabaseReport[] | ClusterProgress['databases'];
  /** With --show-passwords: those that this process made up, by role. */
  placeholders?: Readonly<Record<string, string>>;
}

/** Tables of databases and roles, then every warning. `columns`: of the terminal that it is for, if there is one. */
export function renderReport(
  { roles, databases }: Pick<ClusterReport, 'roles' | 'databases'>,
  columns = Infinity,
): string {
  const parts: string[] = [];
  if (databases.length > 0)
    parts.push(messageTable(DATABASE, databases.map(databaseCells), columns, ['TABLES', 'ROWS', 'SIZE', 'TIME']));
  if (roles.length > 0)
    parts.push(
      messageTable(
        ['ROLE', 'STATUS', 'MESSAGE'],
        roles.map(({ role, status, message }) => [role, status, message]),
        columns,
      ),
    );
  const warnings = databases.flatMap(({ database, warnings }) =>
    warnings.flatMap((text) => indented(plain(`${database}: ${text}`), columns)),
  );
  if (warnings.length > 0) parts.push(['Warnings:', ...warnings].join('\n'));
  return parts.join('\n\n');
}

const DATABASE = ['DATABASE', 'METHOD', 'STATUS', 'TABLES', 'ROWS', 'SIZE', 'TIME', 'MESSAGE'];

const databaseCells = ({ database, method, status, tables, rows, bytes, seconds, message }: DatabaseReport) => [
  ...[database, method ?? '', status, String(tables), String(rows), formatBytes(bytes)],
  ...[formatSeconds(Object.values(seconds).reduce((sum, value) => sum + value, 0)), message],
];

/** The last column holds sentences. Where they would make lines too long, they follow below the table. */
function messageTable(
  header: readonly string[],
  rows: readonly (readonly string[])[],
  columns: number,
  right: readonly string[] = [],
): string {
  const whole = table(header, rows, right);
  if (whole.split('\n').every((line) => widthOf(line) <= columns)) return whole;
  const short = table(
    header.slice(0, -1),
    rows.map((row) => row.slice(0, -1)),
    right,
  );
  const messages = rows.filter((row) => plain(row.at(-1) ?? '') !== '');
  return [short, ...messages.flatMap((row) => indented(plain(`${row[0] ?? ''}: ${row.at(-1) ?? ''}`), columns))].join(
    '\n',
  );
}
