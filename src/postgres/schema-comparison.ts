import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { applicationName, LEDGER_SCHEMA, NAME_PREFIX } from '../contract.ts';
import { MigrationError } from '../domain/failure.ts';
import type { Migration } from '../domain/migration.ts';
import type { ArchiveEntry } from './archive-script.ts';
import { dumpSchema, listArchive, readArchive } from './archive.ts';
import type { Session } from './connection.ts';
import type { Program } from './programs.ts';
import { findProgram } from './programs.ts';
import { nameSome } from './schema-archive.ts';
import { GRANTS, isOfExcludedExtension, labelOf, NOT_CARRIED, OUR_PUBLICATION } from './stage.ts';

/** An object of a schema, as pg_dump writes it. */
interface Described {
  kind: string;
  owner: string;
  definition: string;
}

/**
 * Kinds whose text does not depend on the server's version: what holds an expression is written anew by each server from
 * what it has parsed, and says the same in other words.
 */
const SAME_WORDS: readonly string[] = [
  ...['FUNCTION', 'PROCEDURE', 'TRIGGER', 'SEQUENCE', 'SEQUENCE OWNED BY', 'TYPE', 'EXTENSION', 'SCHEMA', 'COMMENT'],
  ...GRANTS,
];

/** What an object has. pg_dump leaves them out where they are as usual, which depends on the owner. */
const ATTRIBUTES: readonly string[] = ['COMMENT', 'SECURITY LABEL', ...GRANTS];

/**
 * How the schemas of the two databases differ: objects, definitions, owners and grants, by what one and the same pg_dump
 * says of both; a sentence for each kind of difference. What the plan leaves out is none. Definitions of views, tables
 * and constraints are compared between servers of one major version only.
 * @throws MigrationError `NotComplete`: the target lacks what the migration has restored, so somebody has dropped it
 */
export async function compareSchemas(
  m: Migration,
  source: Session,
  target: Session,
  signal: AbortSignal,
): Promise<string[]> {
  const newest = Math.max(source.version, target.version);
  const versions = { sourceVersion: newest, targetVersion: newest };
  const [dump, restore] = await Promise.all([findProgram('pg_dump', versions), findProgram('pg_restore', versions)]);
  const programs = { dump, restore };
  const [here, there] = await Promise.all([
    describe(m, source, programs, signal),
    describe(m, target, programs, signal),
  ]);
  const absent = await readRestored(target, false);
  const provided = await ofItsExtensions(target);
  const sameMajor = Math.floor(source.version / 10_000) === Math.floor(target.version / 10_000);
  const labels = [...new Set([...here.keys(), ...there.keys()])].filter((label) => !absent.has(label)).sort();
  const both = labels.flatMap((label) => {
    const [left, right] = [here.get(label), there.get(label)];
    return left === undefined || right === undefined ? [] : [{ label, left, right }];
  });
  const lacking = labels.filter((label) => !there.has(label));
  const restored = await readRestored(target);
  const dropped = lacking.filter((label) => restored.has(label) && !ATTRIBUTES.includes(here.get(label)?.kind ?? ''));
  if (dropped.length > 0)
    throw new MigrationError(
      'NotComplete',
      `The target lacks what was restored there, and the source still has: ${nameSome(dropped)}.`,
      { object: dropped[0] ?? null, next: 'Make it again on the target, then resolve with retry.' },
    );
  return [
    ...sentence('Only on the source', lacking),
    ...sentence(
      'Only on the target',
      labels.filter((label) => !here.has(label) && !provided.has(label)),
    ),
    ...sentence(
      'Of another owner',
      both.filter(({ left, right }) => left.owner !== right.owner).map(({ label }) => label),
    ),
    ...sentence(
      'Defined in another way',
      both
        .filter(({ left, right }) => left.definition !== right.definition)
        .filter(({ left }) => sameMajor || SAME_WORDS.includes(left.kind))
        .map(({ label }) => label),
    ),
  ];
}

const sentence = (what: string, labels: readonly string[]): string[] =>
  labels.length === 0 ? [] : [`${what}: ${nameSome(labels)}.`];

async function describe(
  m: Migration,
  session: Session,
  { dump, restore }: { dump: Program; restore: Program },
  signal: AbortSignal,
): Promise<Map<string, Described>> {
  const directory = await mkdtemp(join(tmpdir(), 'pgtransit-'));
  try {
    const file = join(directory, 'schema.dump');
    await session.transaction(async () => {
      const { snapshot } = await session.one<{ snapshot: string }>('SELECT pg_export_snapshot() AS snapshot');
      const name = applicationName(m.id, 'probe');
      const { version, endpoint } = session;
      const request = {
        program: dump,
        source: endpoint,
        version,
        database: m.database,
        snapshot,
        applicationName: name,
        signal,
      };
      await dumpSchema(request, file);
    }, 'BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ');
    const listed = await listArchive(restore, file, signal);
    const objects = new Map<string, Described>();
    const archive = { program: restore, file, directory, owners: m.plan.owners, signal };
    for await (const entry of readArchive(archive, listed)) {
      if (isLeftOut(entry, m)) continue;
      const lines = entry.sql.split('\n');
      const label = labelOf(entry);
      const before = objects.get(label);
      objects.set(label, {
        kind: entry.kind,
        owner: `${before?.owner ?? ''}${lines.filter((line) => OWNER.test(line)).join('\n')}`,
        definition: `${before?.definition ?? ''}${lines.filter((line) => !OWNER.test(line)).join('\n')}`,
      });
    }
    return objects;
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

const OWNER = /^ALTER .* OWNER TO .*;$/;

/** What comes another way, what the plan leaves out, and what is ours. */
const isLeftOut = (entry: ArchiveEntry, { plan }: Migration): boolean =>
  NOT_CARRIED.includes(entry.kind) ||
  entry.kind === 'DATABASE PROPERTIES' ||
  // There is one everywhere; pg_dump has it only where its owner is another than usual.
  (entry.kind === 'SCHEMA' && entry.name === 'public') ||
  (entry.kind.startsWith('PUBLICATION') && OUR_PUBLICATION.test(entry.name)) ||
  (entry.kind === 'TRIGGER' && entry.name.includes(` ${NAME_PREFIX}`)) ||
  (!plan.privileges && GRANTS.includes(entry.kind)) ||
  isOfExcludedExtension(entry, plan.extensions.exclude);

/** Extensions that somebody has put into the target, such as its provider, are no difference of the schema. */
async function ofItsExtensions(target: Session): Promise<Set<string>> {
  const rows = await target.query<{ extension: string; schema: string }>(
    'SELECT extname AS extension, nspname AS schema FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace',
  );
  return new Set(
    rows.flatMap(({ extension, schema }) =>
      [`EXTENSION ${extension}`, `SCHEMA ${schema}`].flatMap((name) => [name, `COMMENT ${name}`, `ACL ${name}`]),
    ),
  );
}

/** What is in; or what comes at the very end, and what the target could not have, which a warning has told. */
async function readRestored(target: Session, isIn = true): Promise<Set<string>> {
  const rows = await target.query<{ label: string }>(
    `SELECT label FROM ${LEDGER_SCHEMA}.entry WHERE (state = 'done') = $1`,
    [isIn],
  );
  return new Set(rows.map(({ label }) => label));
}
