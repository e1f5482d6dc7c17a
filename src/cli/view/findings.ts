import type { Finding } from '../../domain/finding.ts';
import { plain, plainLines } from './text.ts';

const ORDER = { error: 0, warning: 1, info: 2 } as const;

/** What validation saw, the worst first, each with what to do about it. Remedies are whole lines, to be pasted. */
export function renderFindings(findings: readonly Finding[]): string {
  const sorted = [...findings].sort((a, b) => ORDER[a.severity] - ORDER[b.severity]);
  return sorted.map(renderFinding).join('\n');
}

function renderFinding({ severity, unknown, code, server, database, object, message, remedy }: Finding): string {
  const where = [server, database, object].filter((part) => part !== null).map(plain);
  const word = unknown === true ? `${severity}, unknown` : severity;
  const lines = [`${word.toUpperCase()} ${code} (${where.join(', ')})`, `  ${plain(message)}`];
  if (remedy !== null)
    lines.push(
      ...plainLines(remedy)
        .split('\n')
        .map((line) => `    ${line}`),
    );
  return lines.join('\n');
}

/** E.g. `2 errors, 1 warning`. */
export function countFindings(findings: readonly Finding[]): string {
  const counts = (['error', 'warning', 'info'] as const).map((severity) => {
    const count = findings.filter((finding) => finding.severity === severity).length;
    return count === 0 ? '' : `${count} ${severity}${count === 1 || severity === 'info' ? '' : 's'}`;
  });
  return counts.filter((text) => text !== '').join(', ') || 'nothing';
}
