import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { LEDGER_SCHEMA } from '../contract.ts';
import { MigrationError } from '../domain/failure.ts';
import type { ArchiveEntry, ListedEntry } from './archive-script.ts';
import { isUnambiguous, splitScript } from './archive-script.ts';
import type { Endpoint } from './connection.ts';
import { programEnvironment } from './program-environment.ts';
import type { Program } from './programs.ts';
import { runProgram } from './programs.ts';

export interface DumpRequest {
  program: Program;
  source: Endpoint;
  /** `server_version_num` of the source. */
  version: number;
  database: string;
  /** Exported by a session that is still open. */
  snapshot: string;
  applicationName: string;
  signal: AbortSignal;
  /** Makes pg_dump say what it does, line by line. */
  onLine?: ((line: string) => void) | undefined;
}

/** Writes the schema of one database, as one snapshot sees it, into `file`. */
export async function dumpSchema(request: DumpRequest, file: string): Promise<void> {
  const { program, source, version, database, snapshot, applicationName, signal, onLine } = request;
  const args = ['--format=custom', '--schema-only', '--create', '--no-password', '--encoding=UTF8'];
  // A ledger on the source is that of the migration that once filled it.
  args.push(`--exclude-schema=${LEDGER_SCHEMA}`, '--no-subscriptions', `--snapshot=${snapshot}`, `--file=${file}`);
  if (onLine !== undefined) args.push('--verbose');
  const env = programEnvironment(source, { database, version, applicationName });
  try {
    for await (const output of runProgram(program, args, { env, signal, onLine })) void output;
  } catch (error) {
    if (!(error instanceof MigrationError)) throw error;
    const lost = /invalid snapshot identifier|snapshot "[^"]*" does not exist/i.test(error.message);
    if (lost)
      throw new MigrationError(
        'SnapshotLost',
        `The snapshot of database "${database}" on the source is gone: ${error.message}`,
      );
    if (CONNECTION.test(error.message))
      throw new MigrationError('ConnectionFailed', error.message, { object: 'pg_dump' });
    throw error;
  }
}

/** libpq's words, since a program has no SQLSTATE for us: what passes by itself, and is tried again. */
const CONNECTION =
  /connection to server .*(refused|timed out|reset|closed|starting up|shutting down|in recovery mode|too many)|server closed the connection|terminating connection|no connection to the server|could not (receive data from|send data to) server/i;

/** What the archive holds, in the order in which pg_restore would run it. */
export async function listArchive(program: Program, file: string, signal: AbortSignal): Promise<ListedEntry[]> {
  // An entry without a section of its own, such as a comment, is listed with the section it lies in.
  const [preData, whole] = await Promise.all([
    list(program, ['--list', '--create', '--section=pre-data', file], signal),
    list(program, ['--list', '--create', file], signal),
  ]);
  const ids = new Set(preData.map(({ dumpId }) => dumpId));
  const entries = whole.map((entry): ListedEntry => ({ ...entry, preData: ids.has(entry.dumpId) }));
  return [1, 2, 3].flatMap((pass) => entries.filter((entry) => restorePass(entry) === pass));
}

async function list(program: Program, args: string[], signal: AbortSignal): Promise<Omit<ListedEntry, 'preData'>[]> {
  let text = '';
  for await (const piece of runProgram(program, args, { env: process.env, signal })) text += piece;
  return [...text.matchAll(/^(\d+); (\d+) (\d+) (.*)$/gm)].map(([, dumpId, classOid, oid, description]) => ({
    dumpId: Number(dumpId),
    classOid: Number(classOid),
    oid: Number(oid),
    description: description ?? '',
  }));
}

/** pg_restore's passes (_tocEntryRestorePass in pg_backup_archiver.c): all else, then privileges, then event triggers. */
function restorePass({ description }: ListedEntry): 1 | 2 | 3 {
  if (/^(ACL|DEFAULT ACL) /.test(description)) return 2;
  return /^((COMMENT|SECURITY LABEL) - )?EVENT TRIGGER /.test(description) ? 3 : 1;
}

export interface ArchiveSource {
  /** pg_restore */
  program: Program;
  file: string;
  /** For files of ours. */
  directory: string;
  /** Whether objects are given the owners that they have on the source. */
  owners: boolean;
  signal: AbortSignal;
}

/**
 * Gives each entry with its SQL, in the order of `entries`. The text of all of them is split at the headers that
 * pg_restore writes. Where a function's body holds such a header too, the list is halved until nothing is ambiguous.
 */
export async function* readArchive(
  source: ArchiveSource,
  entries: readonly ListedEntry[],
): AsyncGenerator<ArchiveEntry> {
  if (!(await isUnambiguous(script(source, entries), entries))) {
    const half = Math.ceil(entries.length / 2);
    yield* readArchive(source, entries.slice(0, half));
    yield* readArchive(source, entries.slice(half));
    return;
  }
  yield* splitScript(script(source, entries), entries);
}

async function* script(
  { program, file, directory, owners, signal }: ArchiveSource,
  entries: readonly ListedEntry[],
): AsyncGenerator<string> {
  const listFile = join(directory, 'entries.list');
  await writeFile(listFile, entries.map(({ dumpId }) => `${dumpId};\n`).join(''), { mode: 0o600 });
  const args = ['--file=-', '--create', '--verbose', `--use-list=${listFile}`, ...(owners ? [] : ['--no-owner']), file];
  yield* runProgram(program, args, { env: process.env, signal });
}
