import { applicationName, generationName, rangePrefix } from '../src/contract.ts';
import { MigrationError } from '../src/domain/failure.ts';
import type { Migration } from '../src/domain/migration.ts';
import { endSessions } from '../src/postgres/backend.ts';
import type { Session } from '../src/postgres/connection.ts';
import { displayName } from '../src/postgres/identifier.ts';
import { underSnapshot } from '../src/postgres/import-snapshot.ts';
import type { KeyRange } from '../src/postgres/key-range.ts';
import { cutTables, rangedTables } from '../src/postgres/key-range.ts';
import {
  createFilteredPublication,
  createPublication,
  dropPublication,
  dropPublications,
  publishedTables,
} from '../src/postgres/publication.ts';
import type { Table } from '../src/postgres/scope.ts';
import { dropSlot } from '../src/postgres/slot.ts';
import type { Holder } from '../src/postgres/snapshot.ts';
import { openHolder } from '../src/postgres/snapshot.ts';
import type { ActivityDeps } from './context.ts';
import { activitySignal, openSource, withSession } from './context.ts';

/** A table that is created between publication and slot makes a new beginning; so many in a row is a deployment. */
const MOST_BEGINNINGS = 5;

/** What the publications are to list, as the session sees it. */
export type ReadTables = (session: Session) => Promise<Table[]>;

export interface Opened {
  holder: Holder;
  /** Of the first generation: how tables were cut. Later ones find them booked. */
  ranges: KeyRange[];
}

/** The generation in which everything begins. */
const FIRST = 0;

/** Publication first, slot second, and both from the start again when a table came between them. */
export async function openGeneration(
  deps: ActivityDeps,
  source: Session,
  target: Session,
  m: Migration,
  {
    generation,
    slotLockTimeoutSeconds,
    read,
  }: { generation: number; slotLockTimeoutSeconds: number; read: ReadTables },
): Promise<Opened> {
  const endpoint = deps.endpoint(m.plan.source, 'source');
  const holderName = applicationName(m.id, 'holder');
  const options = {
    endpoint,
    database: m.database,
    name: holderName,
    slotLockTimeoutSeconds,
    signal: activitySignal(),
  };
  if (m.method !== 'replication') return { holder: await openHolder(source, { ...options, slot: null }), ranges: [] };
  const name = generationName(m.id, generation);
  for (let beginning = 1; ; beginning += 1) {
    await dropSlot(source, name);
    const tables = await read(source);
    const ranges = generation === FIRST ? await publishRanges(source, target, m, tables) : [];
    const ranged = generation === FIRST ? new Set(ranges.map(({ relation }) => relation)) : await rangedTables(target);
    await createPublication(
      source,
      name,
      tables.filter(({ oid }) => !ranged.has(oid)),
    );
    const holder = await openHolder(source, { ...options, slot: name });
    try {
      const missing = await seenButNotPublished(deps, source, m, {
        publication: name,
        ranged,
        snapshot: holder.snapshot,
        read,
      });
      if (missing.length === 0) return { holder, ranges };
      if (beginning === MOST_BEGINNINGS)
        throw new MigrationError(
          'ServerBusy',
          `Tables keep being created on the source while the slot is made, the last one ${missing[0] ?? ''}: wait until the deployment is over.`,
        );
    } catch (error) {
      await abandon(source, m, holder, name);
      throw error;
    }
    await abandon(source, m, holder, name);
  }
}

/** Publications of ranges must be there before any slot that is to send by them, so all are made before the first. */
async function publishRanges(
  source: Session,
  target: Session,
  m: Migration,
  tables: readonly Table[],
): Promise<KeyRange[]> {
  // Of an earlier beginning, which may have cut otherwise.
  await dropPublications(source, rangePrefix(m.id));
  const { rangeBytes } = m.plan.snapshot;
  const ranges = rangeBytes === null ? [] : await cutTables(source, target, m.id, tables, rangeBytes);
  for (const range of ranges) await createFilteredPublication(source, range.publication, range, range.condition);
  return ranges;
}

async function abandon(source: Session, m: Migration, holder: Holder, name: string): Promise<void> {
  holder.session.destroy();
  await endSessions(source, m.database, [applicationName(m.id, 'holder')]);
  await dropSlot(source, name);
  await dropPublication(source, name);
}

/** A table made after the publication and before the slot would be copied once and then never change again. */
async function seenButNotPublished(
  deps: ActivityDeps,
  source: Session,
  m: Migration,
  {
    publication,
    ranged,
    snapshot,
    read,
  }: { publication: string; ranged: ReadonlySet<number>; snapshot: string; read: ReadTables },
): Promise<string[]> {
  const published = await publishedTables(source, publication);
  return withSession(openSource(deps, m, 'probe'), 'comparing snapshot and publication', (reader) =>
    underSnapshot(reader, snapshot, async () => {
      const seen = await read(reader);
      return seen
        .filter(({ oid }) => !published.has(oid) && !ranged.has(oid))
        .map(({ schema, name }) => displayName(schema, name));
    }),
  );
}
