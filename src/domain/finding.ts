/** `error` blocks, `warning` does not, `info` is worth knowing. */
export type Severity = 'error' | 'warning' | 'info';

/**
 * What a check saw. `unknown: true` means that the check could not run; a check whose severity is `error` then blocks
 * exactly as if it had failed, because nobody knows.
 */
export interface Finding {
  /** Stable, kebab-case: scripts may match on it. */
  code: string;
  severity: Severity;
  unknown?: boolean;
  server: 'source' | 'target';
  database: string | null;
  /** Quoted as SQL would quote it, e.g. `public."My table"`; null when the finding is about the server or database. */
  object: string | null;
  /** One sentence: what was seen. */
  message: string;
  /** What to do: SQL to paste, a setting, or an option. */
  remedy: string | null;
}

export const blocks = (finding: Finding): boolean => finding.severity === 'error';

/** More objects than this of one code and database are summed up as "and n more": a report must stay small. */
export const MAX_OBJECTS_PER_FINDING = 50;

export function capFindings(findings: readonly Finding[]): Finding[] {
  const seen = new Map<string, number>();
  const kept: Finding[] = [];
  const left = new Map<string, { finding: Finding; more: number }>();
  for (const finding of findings) {
    const key = `${finding.code} ${finding.server} ${finding.severity} ${finding.database ?? ''}`;
    const count = (seen.get(key) ?? 0) + 1;
    seen.set(key, count);
    if (count <= MAX_OBJECTS_PER_FINDING) kept.push(finding);
    else left.set(key, { finding, more: (left.get(key)?.more ?? 0) + 1 });
  }
  for (const { finding, more } of left.values()) {
    kept.push({ ...finding, object: null, message: `${finding.code}: and ${more} more objects like the ones above.` });
  }
  return kept;
}

/** One line a finding, for a failure's message or a terminal. */
export function describeFinding(finding: Finding): string {
  const where = [finding.database, finding.object].filter((part) => part !== null).join(': ');
  const remedy = finding.remedy === null ? '' : ` To mend it: ${finding.remedy}`;
  return `[${finding.code}] ${finding.server}${where === '' ? '' : ` ${where}`}: ${finding.message}${remedy}`;
}
