/** One line of `pg_restore --list`. */
export interface ListedEntry {
  dumpId: number;
  /** Catalog and oid on the source; 0 where it has none. */
  classOid: number;
  oid: number;
  /** Kind, schema, name and owner, with blanks between them that each of them may hold as well. */
  description: string;
  /** Else post-data. */
  preData: boolean;
}

export interface ArchiveEntry extends ListedEntry {
  /** pg_dump's word: TABLE, INDEX, FK CONSTRAINT, ACL, … */
  kind: string;
  /** Null where it is in no schema. */
  schema: string | null;
  name: string;
  /** Dump ids of the entries that it needs. */
  dependsOn: readonly number[];
  sql: string;
  /** Where it wants to be stored, and how; null: the default. */
  tablespace: string | null;
  accessMethod: string | null;
}

/** What `pg_restore --verbose --file=-` writes above the SQL of each entry. */
const HEADER = /^-- TOC entry (\d+) \(class (\d+) OID (\d+)\)$/;

/** As they come, some at a time: one at a time a line took longer than PostgreSQL needs to write it. */
async function* linesOf(text: AsyncIterable<string>): AsyncGenerator<string[]> {
  let rest = '';
  for await (const piece of text) {
    const lines = (rest + piece).split('\n');
    rest = lines.pop() ?? '';
    yield lines;
  }
  if (rest !== '') yield [rest];
}

/**
 * Whether the script can be split at its headers: each is there once. A function's body may hold the text of another
 * script, headers and all. A script of one entry needs no second header.
 */
export async function isUnambiguous(text: AsyncIterable<string>, entries: readonly ListedEntry[]): Promise<boolean> {
  const due = new Set(entries.map(({ dumpId }) => dumpId));
  let seen = 0;
  for await (const lines of linesOf(text))
    for (const line of lines) if (due.has(Number(HEADER.exec(line)?.[1]))) seen++;
  return seen === entries.length || entries.length === 1;
}

/** Splits pg_restore's script into the entries it was asked for, which come in that order. */
export async function* splitScript(
  text: AsyncIterable<string>,
  entries: readonly ListedEntry[],
): AsyncGenerator<ArchiveEntry> {
  const state: State = { tablespace: null, accessMethod: null, key: null };
  let lines: string[] = [];
  let next = 0;
  let header = headerOf(entries[next]);
  for await (const some of linesOf(text)) {
    for (const line of some) {
      if (line !== header) {
        lines.push(line);
        continue;
      }
      lines.pop(); // the `--` that opens the header
      yield* finishEntry(entries[next - 1], lines, state);
      lines = [];
      header = headerOf(entries[++next]);
    }
  }
  yield* finishEntry(entries[next - 1], lines, state);
  const missing = entries[next];
  if (missing !== undefined) throw new Error(`pg_restore gave no SQL for "${missing.description}"`);
}

const headerOf = (entry: ListedEntry | undefined): string | null =>
  entry === undefined ? null : `-- TOC entry ${entry.dumpId} (class ${entry.classOid} OID ${entry.oid})`;

/** What holds for the entries that follow. */
interface State {
  tablespace: string | null;
  accessMethod: string | null;
  /** The word that this script's \restrict lines carry. */
  key: string | null;
}

function* finishEntry(entry: ListedEntry | undefined, lines: readonly string[], state: State): Generator<ArchiveEntry> {
  const [own, after] = cutTail(lines, state);
  if (entry === undefined) state.key = restrictKey(lines);
  else yield readEntry(entry, own, state);
  applySettings(after, state);
}

const restrictKey = (lines: readonly string[]): string | null =>
  lines.map((line) => /^\\restrict (\w+)$/.exec(line)?.[1]).find((key) => key !== undefined) ?? null;

const SETTING = /^SET (default_tablespace|default_table_access_method) = (.*);$/;
const REMARK = /^-- (Completed on |PostgreSQL database dump complete$)/;

/** The entry's own lines; and psql's commands after a database, settings for the next entry, remarks at the end. */
function cutTail(lines: readonly string[], { key }: State): [string[], string[]] {
  let end = lines.findIndex((line) => (key === null ? line.startsWith('\\connect ') : line === `\\unrestrict ${key}`));
  if (end < 0) end = lines.length;
  const isTail = (line: string) => line === '' || line === '--' || SETTING.test(line) || REMARK.test(line);
  while (end > 0 && isTail(lines[end - 1] ?? '')) end--;
  return [lines.slice(0, end), lines.slice(end)];
}

function applySettings(lines: readonly string[], state: State): void {
  for (const line of lines) {
    const [, setting, value] = SETTING.exec(line) ?? [];
    if (setting === 'default_tablespace') state.tablespace = value === "''" ? null : unquote(value ?? '');
    if (setting === 'default_table_access_method') state.accessMethod = value === 'heap' ? null : unquote(value ?? '');
  }
}

const unquote = (identifier: string): string =>
  identifier.startsWith('"') ? identifier.slice(1, -1).replaceAll('""', '"') : identifier;

const STORED: readonly string[] = ['TABLE', 'MATERIALIZED VIEW', 'INDEX', 'CONSTRAINT'];

function readEntry(entry: ListedEntry, lines: readonly string[], state: State): ArchiveEntry {
  const title = lines.findIndex((line) => line.startsWith('-- Name: '));
  const bodyStart = lines.indexOf('--', title) + 1;
  const { kind, schema, name } = readTitle(lines[title] ?? '', entry);
  const stored = STORED.includes(kind);
  const dependencies = lines
    .slice(0, Math.max(0, title))
    .map((line) => /^-- Dependencies:((?: \d+)+)$/.exec(line)?.[1]);
  return {
    ...entry,
    kind,
    schema,
    name,
    dependsOn: dependencies.flatMap((ids) => ids?.trim().split(' ').map(Number) ?? []),
    sql: `${lines.slice(bodyStart).join('\n').trim()}\n`,
    tablespace: stored ? state.tablespace : null,
    accessMethod: stored ? state.accessMethod : null,
  };
}

/**
 * A name may hold "; Type: INDEX", and a schema may be called DATA, so that "TABLE DATA …" of the list is ambiguous;
 * the kind is what title and list agree about.
 */
function readTitle(title: string, { description }: ListedEntry): Pick<ArchiveEntry, 'kind' | 'schema' | 'name'> {
  const text = title.slice('-- Name: '.length);
  const candidates = [...text.matchAll(/; Type: ([A-Z][A-Z ]*); Schema: /g)];
  const match = candidates.find(([, kind]) => description.startsWith(`${kind} `)) ?? candidates[0];
  if (match === undefined) throw new Error(`pg_restore wrote a title that cannot be read: ${title}`);
  const rest = text.slice(match.index + match[0].length);
  const schema = rest.slice(0, Math.max(0, rest.lastIndexOf('; Owner: ')));
  return { kind: match[1] ?? '', schema: schema === '-' ? null : schema, name: text.slice(0, match.index) };
}
