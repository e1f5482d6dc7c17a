import { MigrationError } from '../domain/failure.ts';

/** One entry of `tables.include` or `tables.exclude`. */
export interface TablePattern {
  text: string;
  matches(database: string, schema: string, name: string): boolean;
}

/** One part: "quoted" (taken as it is, "" for a quote), or plain (folded to lower case, as SQL does). */
const PART = /"((?:[^"]|"")*)"|([^."\s]+)/y;

/**
 * Reads `t`, `s.t` or `db.s.t`, written as SQL identifiers, with `*` and `?` as wildcards outside of quotes.
 * @throws MigrationError `InvalidPlan` for a text that is none of these
 */
export function parseTablePatterns(texts: readonly string[]): TablePattern[] {
  return texts.map((text) => {
    const parts = split(text);
    const [name, schema, database] = [...parts].reverse();
    return {
      text,
      matches: (ofDatabase, ofSchema, ofName) =>
        (name?.test(ofName) ?? false) && (schema?.test(ofSchema) ?? true) && (database?.test(ofDatabase) ?? true),
    };
  });
}

function split(text: string): RegExp[] {
  const parts: RegExp[] = [];
  const trimmed = text.trim();
  let at = 0;
  while (at < trimmed.length) {
    PART.lastIndex = at;
    const match = PART.exec(trimmed);
    const end = at + (match?.[0].length ?? 0);
    const isLast = end === trimmed.length;
    if (match === null || (!isLast && trimmed[end] !== '.') || trimmed.endsWith('.')) throw invalid(text);
    const [, quoted, plain = ''] = match;
    parts.push(
      quoted === undefined
        ? wildcard(plain.toLowerCase())
        : new RegExp(`^${literal(quoted.replaceAll('""', '"'))}$`, 's'),
    );
    at = isLast ? end : end + 1;
  }
  if (parts.length === 0 || parts.length > 3) throw invalid(text);
  return parts;
}

const literal = (text: string): string => text.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&');

const wildcard = (text: string): RegExp =>
  new RegExp(`^${literal(text).replaceAll('\\*', '.*').replaceAll('\\?', '.')}$`, 's');

const invalid = (text: string): MigrationError =>
  new MigrationError(
    'InvalidPlan',
    `"${text}" is no table name: write table, schema.table or database.schema.table, quoted as in SQL.`,
  );
