import { UsageError } from './usage-error.ts';

/**
 * Splits at commas, but not within double quotes; blanks around an item and empty items do not count.
 * @throws UsageError when a double quote is not closed
 */
export function splitList(text: string, flag: string): string[] {
  // Within a quoted name a quote is written twice, so quotes are even in number before a comma that separates.
  if ((text.match(/"/g) ?? []).length % 2 === 1)
    throw new UsageError(`${flag} has a double quote that is not closed: ${text}`);
  const items = text.match(/(?:"[^"]*"|[^",])+/g) ?? [];
  return items.map((item) => item.trim()).filter((item) => item !== '');
}

/** Exact names: `a, b` are two; one that holds a comma, or blanks at its ends, is written in double quotes. */
export const splitNames = (text: string, flag: string): string[] =>
  splitList(text, flag).map((item) =>
    /^"(?:[^"]|"")+"$/s.test(item) ? item.slice(1, -1).replaceAll('""', '"') : item,
  );

/** For commander: collects what every occurrence of the flag brings. */
export const collect =
  (split: (text: string, flag: string) => string[], flag: string) =>
  (text: string, before: readonly string[] = []): string[] => [...before, ...split(text, flag)];
