import { formatBytes } from '../../domain/format.ts';
import type { ClusterProgress, ClusterReport, DatabaseReport, RoleReport } from '../../domain/progress.ts';
import type { Finding } from '../../domain/finding.ts';
import { formatSeconds } from './amounts.ts';
import { plain, table } from './text.ts';

/** What a command answers with `--json` and writes into `--report-file`. */
export interface Answer {
  id: string;
  status: 'done' | 'running' | 'failed' | 'cancelled' | 'terminated' | 'parked' | 'valid' | 'refused';
  message: string;
  exitCode: number;
  validation: Finding[] | null;
  roles: RoleReport[];
  databases: DatabaseReport[] | ClusterProgress['databases'];
}

/** Tables of databases and roles, then every warning. */
export function renderReport({ roles, databases }: Pick<ClusterReport, 'roles' | 'databases'>): string {
  const parts = [databaseTable(databases)];
  if (roles.length > 0)
    parts.push(
      table(
        ['ROLE', 'STATUS', 'MESSAGE'],
        roles.map(({ role, status, message }) => [role, status, message]),
      ),
    );
  const warnings = databases.flatMap(({ database, warnings }) =>
    warnings.map((text) => `  ${plain(`${database}: ${text}`)}`),
  );
  if (warnings.length > 0) parts.push(['Warnings:', ...warnings].join('\n'));
  return parts.join('\n\n');
}

function databaseTable(databases: readonly DatabaseReport[]): string {
  const rows = databases.map(({ database, method, status, tables, rows, bytes, seconds, message }) => [
    ...[database, method ?? '', status, String(tables), String(rows), formatBytes(bytes)],
    ...[formatSeconds(Object.values(seconds).reduce((sum, value) => sum + value, 0)), message],
  ]);
  return table(['DATABASE', 'METHOD', 'STATUS', 'TABLES', 'ROWS', 'SIZE', 'TIME', 'MESSAGE'], rows);
}
