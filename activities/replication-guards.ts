import { LEDGER_SCHEMA } from '../src/contract.ts';
import { MigrationError } from '../src/domain/failure.ts';
import { LIMITS } from '../src/domain/limits.ts';
import type { Migration } from '../src/domain/migration.ts';
import type { Session } from '../src/postgres/connection.ts';
import { displayName, quoteIdent } from '../src/postgres/identifier.ts';
import { bytesUnconfirmed, sameLsn } from '../src/postgres/lag.ts';
import { publicationsOf, readRangeDamage } from '../src/postgres/key-range.ts';
import { recordWarning } from '../src/postgres/ledger.ts';
import { notPublished } from '../src/postgres/publication.ts';
import { isPublished, listTables } from '../src/postgres/scope.ts';
import type { SequenceBehind } from '../src/postgres/sequence-behind.ts';
import { sequencesBehind } from '../src/postgres/sequence-behind.ts';
import { readSlot } from '../src/postgres/slot.ts';
import { perhapsTruncated } from '../src/postgres/truncation.ts';
import { describeDifferences } from './definitions.ts';

/** @throws MigrationError `NotComplete`: changes must not be applied to tables that are still being copied */
export async function requireSealed(target: Session): Promise<void> {
  const [unsealed] = await target.query<{ name: string; state: string }>(
    `SELECT name, state FROM ${LEDGER_SCHEMA}.generation WHERE slot AND state NOT IN ('sealed', 'streaming') LIMIT 1`,
  );
  if (unsealed !== undefined)
    throw new MigrationError(
      'NotComplete',
      `The copy of generation ${unsealed.name} is not sealed: it is ${unsealed.state}.`,
    );
}

/** @throws MigrationError `SlotLost` when a slot is gone or can no longer serve */
export async function requireSlots(source: Session, names: string[], lsn: string): Promise<number> {
  const bytes = await bytesUnconfirmed(source, names, lsn);
  for (const name of names) {
    const slot = await readSlot(source, name);
    if (slot === null)
      throw new MigrationError('SlotLost', `The replication slot ${name} was dropped on the source.`, { object: name });
    if (slot.lost !== null)
      throw new MigrationError('SlotLost', `The replication slot ${name} is lost: ${slot.lost}.`, { object: name });
  }
  return bytes ?? 0;
}

/**
 * Where nothing was subscribed yet, the slot must still begin at the snapshot: a later beginning is a gap in the rows.
 * @throws MigrationError `SlotLost`
 */
export async function requireSlotsOfTheSnapshots(source: Session, target: Session, names: string[]): Promise<void> {
  await requireSlots(source, names, '0/0');
  const fresh = await target.query<{ name: string; lsn: string }>(
    `SELECT name, consistent_point::text AS lsn FROM ${LEDGER_SCHEMA}.generation
      WHERE slot AND name NOT IN (SELECT subname FROM pg_subscription)`,
  );
  for (const { name, lsn } of fresh) {
    const confirmed = (await readSlot(source, name))?.confirmed ?? null;
    if (!sameLsn(confirmed, lsn))
      throw new MigrationError(
        'SlotLost',
        `The replication slot ${name} begins at ${confirmed ?? 'no position'}, and the rows were copied as they were at ${lsn}.`,
        { object: name },
      );
  }
}

const AGAIN = 'Start the migration again, and leave its publications alone.';

/**
 * What a publication does not list is skipped by its slot, and counts as confirmed: nothing else would show the gap.
 * @throws MigrationError `SlotLost`, naming the table
 */
export async function requirePublished(source: Session, target: Session, names: string[]): Promise<void> {
  const damage = await readRangeDamage(source, target);
  if (damage !== null) throw new MigrationError('SlotLost', damage.message, { object: damage.table, next: AGAIN });
  const copied = await target.query<{ oid: number }>(
    `SELECT oid::float8 AS oid FROM ${LEDGER_SCHEMA}.relation r
      WHERE published AND NOT EXISTS (SELECT FROM ${LEDGER_SCHEMA}.key_range k WHERE k.relation = r.oid)`,
  );
  const lacking = await notPublished(
    source,
    names,
    copied.map(({ oid }) => oid),
  );
  const [first] = lacking.map(({ schema, name }) => displayName(schema, name));
  if (first === undefined) return;
  const more = lacking.length === 1 ? '' : ` and ${lacking.length - 1} more`;
  throw new MigrationError(
    'SlotLost',
    `Table ${first}${more} was taken out of the publication on the source, so changes of it are lost.`,
    { object: first, next: AGAIN },
  );
}

/**
 * A table that was dropped on the target is in no subscription any more, also when it is made again: its changes would be
 * skipped, and count as applied. @throws MigrationError `ApplyFailed`, naming the table
 */
export async function requireSubscribed(
  m: Migration,
  source: Session,
  target: Session,
  names: string[],
): Promise<void> {
  const copied = await target.query<{ oid: number }>(
    `SELECT oid::float8 AS oid FROM ${LEDGER_SCHEMA}.relation WHERE published`,
  );
  const publications = await publicationsOf(target);
  const subscriptionOf = new Map(
    names.flatMap((name) => (publications.get(name) ?? [name]).map((publication) => [publication, name])),
  );
  // By the names that they have now: a rename on both servers is no loss.
  const onSource = await source.query<{ schema: string; name: string; publication: string }>(
    `SELECT n.nspname AS schema, c.relname AS name, p.pubname AS publication
       FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
       JOIN pg_publication_rel r ON r.prrelid = c.oid JOIN pg_publication p ON p.oid = r.prpubid AND p.pubname = ANY ($2)
      WHERE c.oid = ANY ($1::oid[]) ORDER BY 1, 2`,
    [copied.map(({ oid }) => oid), [...subscriptionOf.keys()]],
  );
  const rows = await target.query<{ schema: string; name: string }>(
    `SELECT n.nspname AS schema, c.relname AS name
       FROM pg_subscription s JOIN pg_subscription_rel r ON r.srsubid = s.oid
       JOIN pg_class c ON c.oid = r.srrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE s.subname = ANY ($1)`,
    [names],
  );
  const subscribed = new Set(rows.map(({ schema, name }) => JSON.stringify([schema, name])));
  const lacking = onSource.find(({ schema, name }) => !subscribed.has(JSON.stringify([schema, name])));
  if (lacking === undefined) return;
  const table = displayName(lacking.schema, lacking.name);
  const refresh = `ALTER SUBSCRIPTION ${quoteIdent(subscriptionOf.get(lacking.publication) ?? '')} REFRESH PUBLICATION;`;
  const message = `Table ${table} was dropped on the target, or renamed on one server only, so its changes are not applied.`;
  throw new MigrationError('ApplyFailed', [message, ...(await describeDifferences(m, source, target))].join(' '), {
    object: table,
    next:
      `Give it the source's name; or make it anew on the target, empty and as it is on the source, and copy its rows ` +
      `with ${refresh} Then resolve with retry.`,
  });
}

/** @throws MigrationError `RowsDiffer`: what was found while it streamed, and not seen to be mended */
export async function requireNoDifference(target: Session): Promise<void> {
  const [found] = await target.query<{ difference: string }>(
    `SELECT difference FROM ${LEDGER_SCHEMA}.comparison WHERE difference IS NOT NULL ORDER BY relation, number LIMIT 1`,
  );
  if (found !== undefined) throw new MigrationError('RowsDiffer', found.difference);
}

/** @throws MigrationError `NotComplete`: a sequence that somebody has moved behind its rows */
export async function requireSequencesAhead(source: Session, target: Session): Promise<void> {
  const [moved] = await sequencesMovedBehind(source, () => target);
  if (moved === undefined) return;
  throw new MigrationError('NotComplete', movedBehind(moved), {
    object: moved.sequence,
    next: `${moved.remedy} on the source, resolve with retry, then send stopReplication again.`,
  });
}

/** One that was behind its rows when the migration began is the application's own affair, and is only said. */
export async function sequencesMovedBehind(source: Session, target: () => Session): Promise<SequenceBehind[]> {
  const behind = await sequencesBehind(source);
  if (behind.length === 0) return [];
  const booked = await target().query<{ message: string }>(
    `SELECT message FROM ${LEDGER_SCHEMA}.event WHERE step = $1`,
    [SEQUENCES_BEHIND],
  );
  const known = new Set(booked.map(({ message }) => message));
  return behind.filter((one) => !known.has(wasBehind(one)));
}

export const movedBehind = ({ sequence, column, value, taken }: SequenceBehind): string =>
  `Sequence ${sequence} was moved behind its rows on the source: it is at ${value}, and ${column} has ${taken}. What is inserted on the target would meet rows that are there.`;

/** At the beginning: what is behind already is no reason to stop later. */
export async function bookSequencesBehind(source: Session, target: Session): Promise<void> {
  for (const one of await sequencesBehind(source)) await recordWarning(target, SEQUENCES_BEHIND, wasBehind(one));
}

const SEQUENCES_BEHIND = 'sequencesBehind';

/** The same words at every look. */
const wasBehind = ({ sequence, column }: SequenceBehind): string =>
  `Sequence ${sequence} was behind ${column} when the migration began: an INSERT may meet rows that are there, as on the source.`;

/** A table that was created since the start is in nobody's publication: say so, since only its owner knows what to do. */
export async function warnOfNewTables(source: Session, target: Session, m: Migration): Promise<void> {
  const known = await target.query<{ oid: number }>(`SELECT oid::float8 AS oid FROM ${LEDGER_SCHEMA}.relation`);
  const oids = new Set(known.map(({ oid }) => oid));
  const fresh = (await listTables(source, m.plan, m.database)).filter(
    (table) => isPublished(table) && !oids.has(table.oid),
  );
  for (const { schema, name } of fresh.slice(0, LIMITS.namesInMessage))
    await recordWarning(
      target,
      'waitForGate',
      `Table ${displayName(schema, name)} was created on the source after the start, and was not migrated.`,
    );
}

/** What will be missing, or be another, when the application works with the target. */
export async function warnOfDifferences(m: Migration, source: Session, target: Session): Promise<void> {
  for (const difference of await describeDifferences(m, source, target))
    await recordWarning(target, 'waitForGate', `The servers differ at the cutover: ${difference}`);
}

/** What no stream of PostgreSQL 10 tells: only the rows on both sides can. */
export async function warnOfTruncatedTables(source: Session, target: Session): Promise<void> {
  for (const table of (await perhapsTruncated(source, target)).slice(0, LIMITS.namesInMessage))
    await recordWarning(
      target,
      'waitForDrain',
      `Table ${table} was truncated or rewritten on the source after it was copied, and PostgreSQL 10 does not ` +
        'replicate TRUNCATE: compare its rows on both servers, because the target may have some that the source has not.',
    );
}
