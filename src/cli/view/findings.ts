import type { Finding } from '../../domain/finding.ts';
import { pasteable, plain } from './text.ts';
import { indented } from './width.ts';

const ORDER = { error: 0, warning: 1, info: 2 } as const;

/**
 * What validation saw, the worst first. What is of one kind stands together, and below it what to do about all of it:
 * whole lines, to be pasted. `columns`: of the terminal that it is for, if there is one.
 */
export function renderFindings(findings: readonly Finding[], columns = Infinity): string {
  const sorted = [...findings].sort((a, b) => ORDER[a.severity] - ORDER[b.severity]);
  const groups = new Map<string, Finding[]>();
  for (const finding of sorted) {
    const { severity, unknown = false, code, server, database } = finding;
    const kind = JSON.stringify([severity, unknown, code, server, database]);
    groups.set(kind, [...(groups.get(kind) ?? []), finding]);
  }
  return [...groups.values()].map((group) => renderGroup(group, columns)).join('\n');
}

function renderGroup(findings: readonly Finding[], columns: number): string {
  const [first] = findings;
  if (first === undefined) return '';
  const { severity, unknown, code, server, database, object } = first;
  const what = findings.length === 1 ? object : `${findings.length} times`;
  const where = [server, database, what].filter((part) => part !== null).map(plain);
  const word = unknown === true ? `${severity}, unknown` : severity;
  const remedies = new Set(findings.flatMap(({ remedy }) => (remedy === null ? [] : [remedy])));
  return [
    `${word.toUpperCase()} ${code} (${where.join(', ')})`,
    ...new Set(findings.flatMap((finding) => indented(sentence(finding, findings.length > 1), columns, '  '))),
    ...[...remedies].flatMap(pasteable).map((line) => `    ${line}`),
  ].join('\n');
}

/** Most messages name their object; among several that is needed. */
const sentence = ({ object, message }: Finding, amongOthers: boolean): string =>
  amongOthers && object !== null && !message.includes(object) ? plain(`${object}: ${message}`) : plain(message);

/** E.g. `2 errors, 1 warning`. */
export function countFindings(findings: readonly Finding[]): string {
  const counts = (['error', 'warning', 'info'] as const).map((severity) => {
    const count = findings.filter((finding) => finding.severity === severity).length;
    return count === 0 ? '' : `${count} ${severity}${count === 1 || severity === 'info' ? '' : 's'}`;
  });
  return counts.filter((text) => text !== '').join(', ') || 'nothing';
}
