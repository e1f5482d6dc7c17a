import { Context } from '@temporalio/activity';
import { applicationName, generationName, LEDGER_SCHEMA } from '../src/contract.ts';
import { MigrationError } from '../src/domain/failure.ts';
import { LIMITS } from '../src/domain/limits.ts';
import type { Migration } from '../src/domain/migration.ts';
import { Bell } from '../src/postgres/bell.ts';
import { endSession, endSessions, sessionIsThere } from '../src/postgres/backend.ts';
import type { Session } from '../src/postgres/connection.ts';
import { tablesOfGeneration } from '../src/postgres/generation.ts';
import { sameLsn } from '../src/postgres/lag.ts';
import { writeRanges } from '../src/postgres/key-range.ts';
import { ledgerExists, requireOwnLedger } from '../src/postgres/ledger.ts';
import { isPublished, listTables } from '../src/postgres/scope.ts';
import { readSlot } from '../src/postgres/slot.ts';
import type { Lease } from '../src/postgres/snapshot.ts';
import { detachHolder } from '../src/postgres/snapshot.ts';
import type { ActivityDeps } from './context.ts';
import { heartbeating, nextPollOr, openSource, openTarget, withSession } from './context.ts';
import type { Opened, ReadTables } from './open-generation.ts';
import { openGeneration } from './open-generation.ts';

export interface SnapshotTimes extends Lease {
  slotLockTimeoutSeconds: number;
}

const TIMES: SnapshotTimes = {
  seconds: LIMITS.snapshotLeaseSeconds,
  mostSeconds: LIMITS.snapshotMostSeconds,
  slotLockTimeoutSeconds: LIMITS.slotLockTimeoutSeconds,
};

interface GenerationRow {
  state: string;
  holder_pid: number;
  consistent_point: string | null;
}

export function createSnapshotActivities(deps: ActivityDeps, given: Partial<SnapshotTimes> = {}) {
  const times = { ...TIMES, ...given };
  return {
    /**
     * Publication, slot and exported snapshot, held by a backend that outlives this worker: for all tables, or for those
     * that the generation before this one left over.
     */
    async openSnapshot(m: Migration, generation: number): Promise<{ consistentPoint: string | null }> {
      return withSession(openTarget(deps, m, 'control'), 'booking the snapshot', (target) =>
        withSession(openSource(deps, m, 'control'), 'opening the snapshot', async (source) => {
          await requireOwnLedger(target, m);
          const isWanted = await tablesOfGeneration(target, generation);
          const read: ReadTables = async (session) =>
            (await listTables(session, m.plan, m.database)).filter((table) => isPublished(table) && isWanted(table));
          const booked = await readGeneration(target, generation);
          if (booked !== null && !(await forgetLost(target, source, m, generation, booked)))
            return { consistentPoint: booked.consistent_point };
          // Of an earlier attempt that is not booked.
          await endSessions(source, m.database, [applicationName(m.id, 'holder')]);
          const { slotLockTimeoutSeconds } = times;
          const opened = await openGeneration(deps, source, target, m, { generation, slotLockTimeoutSeconds, read });
          const { holder } = opened;
          try {
            // A generation in the ledger has a holder that needs no worker: die before, and the next attempt begins again.
            await detachHolder(holder, source, applicationName(m.id, 'keep'), times);
            await book(target, source, m, generation, opened);
          } catch (error) {
            holder.session.destroy();
            throw error;
          }
          return { consistentPoint: holder.consistentPoint };
        }),
      );
    },

    /**
     * Runs as long as the copy: one session that renews the holder's lease, and a look at the holder itself. Once the
     * copy is sealed it ends the holder, whose transaction was only read from. Nobody else's: where the generation was
     * closed instead, the next one may have its holder already.
     */
    async keepSnapshot(m: Migration, generation: number): Promise<void> {
      await withSession(openTarget(deps, m, 'probe'), 'reading the ledger', (target) =>
        withSession(openSource(deps, m, 'keep'), 'keeping the snapshot', async (source) => {
          const bell = await Bell.on(target);
          let held: Held = { holderPid: 0, snapshotAgeSeconds: 0, fewestDeadTuples: 0 };
          // Of the attempt before this one: both look at one snapshot.
          const before = Context.current().info.heartbeatDetails as Partial<Held> | undefined;
          let fewest: number | undefined;
          await heartbeating(
            () => held,
            async () => {
              for (;;) {
                const booked = (await ledgerExists(target)) ? await readGeneration(target, generation) : null;
                if (booked === null)
                  throw new MigrationError('SnapshotLost', `Generation ${generation} is not in the ledger any more.`);
                held = { ...held, holderPid: booked.holder_pid };
                if (booked.state !== 'open') return;
                await requireSlots(source, target, m);
                await requireHolder(source, m, booked);
                const age = await ageOf(source, booked.holder_pid);
                fewest ??= before?.holderPid === booked.holder_pid ? before.fewestDeadTuples : undefined;
                fewest = Math.min(fewest ?? age.deadTuples, age.deadTuples);
                held = { ...held, snapshotAgeSeconds: age.seconds, fewestDeadTuples: fewest };
                requireYoung(m, { ...age, deadTuples: age.deadTuples - fewest });
                await nextPollOr(bell);
              }
            },
          );
          await endSession(source, held.holderPid, applicationName(m.id, 'holder'));
        }),
      );
    },
  };
}

async function readGeneration(target: Session, generation: number): Promise<GenerationRow | null> {
  const rows = await target.query<GenerationRow>(
    `SELECT state, holder_pid, consistent_point::text FROM ${LEDGER_SCHEMA}.generation WHERE number = $1`,
    [generation],
  );
  return rows[0] ?? null;
}

/**
 * A snapshot that was lost before anything was read under it is worth nothing: another one is as good. Answers whether
 * the generation was taken out of the ledger.
 */
async function forgetLost(
  target: Session,
  source: Session,
  m: Migration,
  generation: number,
  booked: GenerationRow,
): Promise<boolean> {
  if (booked.state !== 'open') return false;
  try {
    await requireSlots(source, target, m);
    await requireHolder(source, m, booked);
    return false;
  } catch (error) {
    if (!(error instanceof MigrationError) || error.type !== 'SnapshotLost') throw error;
    const forgotten = await target.query(
      // The first attempt of all cut tables, and the next one cuts them anew.
      `WITH forgotten AS (
         DELETE FROM ${LEDGER_SCHEMA}.generation WHERE number = $1 AND state = 'open' AND holder_pid = $2
            AND NOT EXISTS (SELECT FROM ${LEDGER_SCHEMA}.entry) AND NOT EXISTS (SELECT FROM ${LEDGER_SCHEMA}.relation)
            AND NOT EXISTS (SELECT FROM ${LEDGER_SCHEMA}.unit WHERE generation = $1) RETURNING number),
       uncut AS (
         DELETE FROM ${LEDGER_SCHEMA}.key_range WHERE EXISTS (SELECT FROM forgotten WHERE number = 0))
       SELECT FROM forgotten`,
      [generation, booked.holder_pid],
    );
    if (forgotten.length === 0) throw error;
    return true;
  }
}

/** What `keepSnapshot` heartbeats. */
interface Held {
  holderPid: number;
  snapshotAgeSeconds: number;
  /** Seen in the database's tables: older ones than the snapshot may still go away, and what comes on top stays. */
  fewestDeadTuples: number;
}

interface Age {
  seconds: number;
  /** Transaction ids since, whose dead rows vacuum may not remove. */
  xids: number;
  /** As the server counts them, in all tables of the database. */
  deadTuples: number;
}

/** A walsender shows no start of its transaction, but the holder began its own right after it was there. */
const ageOf = (source: Session, pid: number): Promise<Age> =>
  source.one<Age>(
    `SELECT coalesce(round(extract(epoch FROM clock_timestamp() - max(backend_start))), 0)::float8 AS seconds,
            coalesce(max(age(backend_xmin)), 0)::float8 AS xids,
            (SELECT coalesce(sum(n_dead_tup), 0)::float8 FROM pg_stat_user_tables) AS "deadTuples"
       FROM pg_stat_activity WHERE pid = $1`,
    [pid],
  );

/** @throws MigrationError `SnapshotLost` when the plan wants another snapshot by now */
function requireYoung({ method, plan: { snapshot } }: Migration, { seconds, xids, deadTuples }: Age): void {
  if (method !== 'replication') return;
  const reasons = [
    ...(snapshot.maxSeconds !== null && seconds > snapshot.maxSeconds
      ? [`it is ${seconds} s old, and the plan allows ${snapshot.maxSeconds}`]
      : []),
    ...(snapshot.maxXidAge !== null && xids > snapshot.maxXidAge
      ? [`${xids} transaction ids were assigned since, and the plan allows ${snapshot.maxXidAge}`]
      : []),
    ...(snapshot.maxDeadTuples !== null && deadTuples > snapshot.maxDeadTuples
      ? [`${deadTuples} dead rows have come since, and the plan allows ${snapshot.maxDeadTuples}`]
      : []),
  ];
  if (reasons.length > 0)
    throw new MigrationError(
      'SnapshotLost',
      `The snapshot is given up, so that vacuum can clean up: ${reasons.join('; ')}.`,
      {
        next: 'Allow more in "snapshot" of the plan: no table could be finished within it.',
      },
    );
}

/**
 * The slots of this and of earlier generations, from which nobody has read yet.
 * @throws MigrationError `SnapshotLost`, saying what is gone
 */
async function requireSlots(source: Session, target: Session, m: Migration): Promise<void> {
  const generations = await target.query<{ number: number; lsn: string | null }>(
    `SELECT number, consistent_point::text AS lsn FROM ${LEDGER_SCHEMA}.generation WHERE slot ORDER BY number`,
  );
  for (const { number, lsn } of generations) {
    const name = generationName(m.id, number);
    const slot = await readSlot(source, name);
    if (slot === null)
      throw new MigrationError('SnapshotLost', `The replication slot ${name} was dropped on the source.`);
    if (slot.lost !== null)
      throw new MigrationError('SnapshotLost', `The replication slot ${name} is lost: ${slot.lost}.`);
    // A slot of this name that begins elsewhere leaves a gap after the snapshot, and nobody would ever see it.
    if (!sameLsn(slot.confirmed, lsn))
      throw new MigrationError(
        'SnapshotLost',
        `The replication slot ${name} is not the one of the snapshot: it begins at ` +
          `${slot.confirmed ?? 'no position'} instead of ${lsn ?? 'none'}.`,
      );
  }
}

/** @throws MigrationError `SnapshotLost`, saying why that may be */
async function requireHolder(source: Session, m: Migration, booked: GenerationRow): Promise<void> {
  if (await sessionIsThere(source, booked.holder_pid, applicationName(m.id, 'holder'))) return;
  throw new MigrationError(
    'SnapshotLost',
    `The backend with pid ${booked.holder_pid} that held the snapshot on the source has ended: the server was restarted, ` +
      'somebody terminated it, or its lease was over because no worker was there.',
  );
}

async function book(
  target: Session,
  source: Session,
  m: Migration,
  generation: number,
  { holder, ranges }: Opened,
): Promise<void> {
  const { timeline } = await source.one<{ timeline: number }>(
    'SELECT timeline_id AS timeline FROM pg_control_checkpoint()',
  );
  await target.transaction(async () => {
    await target.query('SET LOCAL synchronous_commit = on');
    const rows = await target.query(
      `INSERT INTO ${LEDGER_SCHEMA}.generation
         (number, name, state, slot, consistent_point, snapshot, holder_pid, source_system_identifier, source_timeline)
       VALUES ($1, $2, 'open', $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING RETURNING number`,
      [
        generation,
        generationName(m.id, generation),
        m.method === 'replication',
        holder.consistentPoint,
        holder.snapshot,
        holder.pid,
        m.servers.source.systemIdentifier,
        timeline,
      ],
    );
    if (rows.length === 0)
      throw new MigrationError('ServerBusy', `Another attempt of this step booked generation ${generation} first.`);
    await writeRanges(target, ranges);
  });
}
