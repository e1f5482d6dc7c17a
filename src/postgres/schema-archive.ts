import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { applicationName } from '../contract.ts';
import { MigrationError } from '../domain/failure.ts';
import { LIMITS } from '../domain/limits.ts';
import type { Migration } from '../domain/migration.ts';
import type { Plan } from '../domain/plan.ts';
import type { ArchiveEntry, ListedEntry } from './archive-script.ts';
import { dumpSchema, listArchive, readArchive } from './archive.ts';
import type { Session } from './connection.ts';
import { insertEntries } from './entry.ts';
import { quoteIdent } from './identifier.ts';
import { recordWarning } from './ledger.ts';
import { findProgram } from './programs.ts';
import {
  hasHiddenColumnOption,
  hasSchema,
  readForeignKeyFacts,
  readIndexFacts,
  readInvalidIndexes,
  readRelations,
  readSubscriptions,
  readTablespaces,
  readTriggerClones,
  readTriggerStates,
} from './schema-catalog.ts';
import { toMigrationError } from './sqlstate.ts';
import type { StagedEntry, StagingFacts } from './stage.ts';
import { FOREIGN_KEY, stageEntry, ValidationOrder } from './stage.ts';

const STEP = 'copySchema';

/** Both sessions are in a transaction: the source's holds the snapshot, the target's takes all entries or none. */
export interface ArchiveRequest {
  m: Migration;
  source: Session;
  target: Session;
  snapshot: string;
  signal: AbortSignal;
  /** Is told what pg_dump says; undefined: it says nothing. */
  onLine: ((line: string) => void) | undefined;
}

/** Takes the source's schema apart and writes it into the target's ledger. Returns the number of entries. */
export async function archiveSchema(request: ArchiveRequest): Promise<number> {
  const { m, source, signal } = request;
  const versions = { sourceVersion: m.servers.source.version, targetVersion: m.servers.target.version };
  const preferSourceMajor = await hasHiddenColumnOption(source);
  const [program, restore] = await Promise.all([
    findProgram('pg_dump', { ...versions, preferSourceMajor }),
    findProgram('pg_restore', versions),
  ]);
  const directory = await mkdtemp(join(tmpdir(), 'pgtransit-'));
  try {
    const file = join(directory, 'schema.dump');
    await dumpSchema(
      {
        program,
        source: source.endpoint,
        version: m.servers.source.version,
        database: m.database,
        snapshot: request.snapshot,
        applicationName: applicationName(m.id, 'control'),
        signal,
        onLine: request.onLine,
      },
      file,
    );
    const listed = await listArchive(restore, file, signal);
    const archive = { program: restore, file, directory, owners: m.plan.owners, signal };
    return await writeEntries(request, listed, readArchive(archive, listed));
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** Entries held in memory at once. What they are made of is asked once for each chunk, and that cost 2 s with 200. */
const CHUNK = 1000;

/** `archive`: one entry for each that is listed, in that order. */
async function writeEntries(
  request: ArchiveRequest,
  listed: readonly ListedEntry[],
  archive: AsyncIterable<ArchiveEntry>,
): Promise<number> {
  const { m, source, target } = request;
  const tablespaces = await readTablespaces(target);
  const dumped = new Set<number>();
  const tables = new Set<number>();
  const order = new ValidationOrder();
  let position = 0;
  const write = async (entries: readonly StagedEntry[]) => {
    await insertEntries(target, entries, position).catch((error: unknown) => {
      throw toMigrationError(error, { server: 'target', doing: 'writing the schema into the ledger' });
    });
    position += entries.length;
  };
  const factsFrom = (start: number) =>
    awaitedLater(readFacts(source, listed.slice(start, start + CHUNK), m.plan, tablespaces));
  let chunk: ArchiveEntry[] = [];
  let read = 0;
  // While a chunk is read, the source is asked about it, and the target takes the one before it.
  let asking = factsFrom(0);
  let writing = Promise.resolve();
  const flush = async () => {
    const entries = chunk;
    chunk = [];
    read += entries.length;
    const facts = { ...(await asking), tables };
    asking = factsFrom(read);
    await writing;
    await warnOfTablespaces(target, entries, tablespaces);
    const staged = entries.flatMap((entry) => {
      const parts = stageEntry(entry, facts);
      if (parts.some(({ touches }) => touches !== null)) tables.add(entry.dumpId);
      return parts;
    });
    writing = awaitedLater(write(order.place(staged)));
  };
  for await (const entry of archive) {
    dumped.add(entry.oid);
    if (chunk.push(entry) >= CHUNK) await flush();
  }
  await flush();
  await Promise.all([asking, writing]);
  await requireAllDumped(source, dumped);
  await write([...order.rest(), ...(await schemaPublic(source, target)), ...(await readTriggerStates(source))]);
  await warnOfWhatStays(source, target);
  return position;
}

/** Is awaited later; a failure before that must not count as unhandled. */
function awaitedLater<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => undefined);
  return promise;
}

/** But for the `tables` so far. */
async function readFacts(
  source: Session,
  entries: readonly ListedEntry[],
  plan: Plan,
  tablespaces: ReadonlySet<string>,
): Promise<Omit<StagingFacts, 'tables'>> {
  // A kind of two words that begins with one of these is asked about for nothing.
  const oids = (...kinds: string[]) =>
    entries.filter(({ description }) => kinds.some((kind) => description.startsWith(`${kind} `))).map(({ oid }) => oid);
  return {
    indexes: await readIndexFacts(source, oids('INDEX', 'CONSTRAINT')),
    foreignKeys: await readForeignKeyFacts(source, oids(FOREIGN_KEY)),
    triggerClones: await readTriggerClones(source, oids('TRIGGER')),
    excludedExtensions: plan.extensions.exclude,
    privileges: plan.privileges,
    tablespaces,
  };
}

async function requireAllDumped(source: Session, dumped: ReadonlySet<number>): Promise<void> {
  const missing = (await readRelations(source)).filter(({ oid, type }) => !dumped.has(oid) && !dumped.has(type));
  if (missing.length === 0) return;
  throw new MigrationError('SchemaFailed', `pg_dump left out ${nameSome(missing.map(({ label }) => label))}.`, {
    object: missing[0]?.label ?? null,
  });
}

/** A new database has it; one whose owner dropped it on the source does not keep it, unless somebody uses it by now. */
async function schemaPublic(source: Session, target: Session): Promise<StagedEntry[]> {
  if ((await hasSchema(source, 'public')) || !(await hasSchema(target, 'public'))) return [];
  const label = 'SCHEMA public';
  return [
    {
      dumpId: 0,
      stage: 'pre',
      kind: 'SCHEMA',
      label,
      classOid: 0,
      oid: 0,
      relation: null,
      touches: null,
      sql: 'DROP SCHEMA IF EXISTS public;\n',
    },
  ];
}

async function warnOfTablespaces(
  target: Session,
  entries: readonly ArchiveEntry[],
  there: ReadonlySet<string>,
): Promise<void> {
  const missing = new Set(
    entries.map(({ tablespace }) => tablespace).filter((name) => name !== null && !there.has(name)),
  );
  for (const name of missing)
    await recordWarning(
      target,
      STEP,
      `The target has no tablespace ${quoteIdent(name ?? '')}; what was in it is in the default one.`,
    );
}

async function warnOfWhatStays(source: Session, target: Session): Promise<void> {
  const invalid = await readInvalidIndexes(source);
  if (invalid.length > 0)
    await recordWarning(
      target,
      STEP,
      `Not carried over, because they are invalid on the source: index ${nameSome(invalid)}.`,
    );
  const subscriptions = await readSubscriptions(source);
  if (subscriptions.length > 0)
    await recordWarning(
      target,
      STEP,
      `Not carried over: subscription ${nameSome(subscriptions)}. Create it on the target after the cutover.`,
    );
}

/** A sentence stays readable whatever the number. */
export function nameSome(names: readonly string[]): string {
  const more = names.length - LIMITS.namesInMessage;
  return names.slice(0, LIMITS.namesInMessage).join(', ') + (more > 0 ? ` and ${more} more` : '');
}
