/** Quotes a name always, so that no name is ever read as SQL and none needs a list of reserved words. */
export const quoteIdent = (name: string): string => `"${name.replaceAll('"', '""')}"`;

export const quoteName = (schema: string, name: string): string => `${quoteIdent(schema)}.${quoteIdent(name)}`;

/** For the few commands that take no parameters. `standard_conforming_strings` is on in every session of ours. */
export function quoteLiteral(text: string): string {
  const quoted = `'${text.replaceAll("'", "''").replaceAll('\\', '\\\\')}'`;
  return text.includes('\\') ? `E${quoted}` : quoted;
}

const PLAIN = /^[a-z_][a-z0-9_$]*$/;

/** For people: quoted only where SQL needs it (reserved words aside), e.g. `public."My table"`. */
export const displayName = (schema: string, name: string): string =>
  [schema, name].map((part) => (PLAIN.test(part) ? part : quoteIdent(part))).join('.');
