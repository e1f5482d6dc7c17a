import { applicationName, generationName, LEDGER_SCHEMA } from '../src/contract.ts';
import { LIMITS } from '../src/domain/limits.ts';
import type { Migration } from '../src/domain/migration.ts';
import { endSessions } from '../src/postgres/backend.ts';
import type { Session } from '../src/postgres/connection.ts';
import { closeGeneration, isCopySealed, readFinished } from '../src/postgres/generation.ts';
import { quoteName } from '../src/postgres/identifier.ts';
import { sameLsn } from '../src/postgres/lag.ts';
import { recordEvent, requireOwnLedger } from '../src/postgres/ledger.ts';
import { dropPublication, narrowPublication } from '../src/postgres/publication.ts';
import { dropSlot, readSlot } from '../src/postgres/slot.ts';
import { sqlstateOf } from '../src/postgres/sqlstate.ts';
import type { ActivityDeps } from './context.ts';
import { openSource, openTarget, withSession } from './context.ts';

export interface ClosedGeneration {
  /** The copy was complete when the snapshot went, so nobody needs another. */
  sealed: boolean;
  /** Tables of this and all earlier generations, and those that are left for the next one. */
  finished: number;
  left: number;
  /** Ranges of keys that are finished, of the tables that are left. */
  ranges: number;
}

const LOCK_NOT_AVAILABLE = '55P03';

export function createGenerationActivities(deps: ActivityDeps) {
  return {
    /**
     * After the snapshot of a generation is lost: its finished tables keep their slot, which has every change since; the
     * others leave its publication, are emptied, and wait for the next generation. Where nothing was finished, nothing of
     * it stays. Safe at every point: first the ledger decides, in one transaction, then the source follows.
     */
    async closeGeneration(m: Migration, generation: number, reason: string): Promise<ClosedGeneration> {
      return withSession(openTarget(deps, m, 'control'), 'closing the generation', (target) =>
        withSession(openSource(deps, m, 'control'), 'closing the generation', async (source) => {
          await requireOwnLedger(target, m);
          if (await isCopySealed(target)) return count(target, generation, true);
          if (await isLast(target, generation)) {
            await decide(source, target, m, generation);
            await withdraw(source, target, m, generation);
          }
          const closed = await count(target, generation, false);
          const ranges = closed.ranges === 0 ? '' : `, but for ${closed.ranges} ranges of their keys`;
          const message = `${closed.finished} tables are finished, ${closed.left} are copied anew${ranges}: ${reason}`;
          await recordEvent(target, `generation ${generation}`, message);
          return closed;
        }),
      );
    },
  };
}

/** What copies, and what holds the snapshot: a session that imported it before it was lost would copy on. */
const endWork = async (session: Session, m: Migration): Promise<void> =>
  endSessions(
    session,
    m.database,
    (['holder', 'copy', 'index'] as const).map((role) => applicationName(m.id, role)),
  );

/** Whoever comes late, when the next one is there already, must not end its sessions. */
async function isLast(target: Session, generation: number): Promise<boolean> {
  const later = await target.query(`SELECT FROM ${LEDGER_SCHEMA}.generation WHERE number > $1`, [generation]);
  return later.length === 0;
}

async function decide(source: Session, target: Session, m: Migration, generation: number): Promise<void> {
  const useless = await uselessGenerations(source, target, m);
  for (;;) {
    await endWork(source, m);
    await endWork(target, m);
    try {
      await target.transaction(async () => {
        await target.query(`SET LOCAL synchronous_commit = on; SET LOCAL lock_timeout = ${LIMITS.closeLockTimeoutMs}`);
        const left = (await closeGeneration(target, generation, useless)) ?? [];
        const filled = left.filter((relation) => relation.filled);
        if (filled.length > 0)
          await target.query(
            `TRUNCATE ${filled.map((relation) => `ONLY ${quoteName(relation.targetSchema, relation.targetName)}`).join(', ')}`,
          );
      });
      return;
    } catch (error) {
      // A lane that was just starting has got in between: it is ended, and asked once more.
      if (sqlstateOf(error) !== LOCK_NOT_AVAILABLE || target.closed) throw error;
    }
  }
}

/** Those whose slot is gone, invalid, or not the one that was made with the snapshot. */
async function uselessGenerations(source: Session, target: Session, m: Migration): Promise<number[]> {
  const rows = await target.query<{ number: number; lsn: string | null }>(
    `SELECT number, consistent_point::text AS lsn FROM ${LEDGER_SCHEMA}.generation WHERE slot`,
  );
  const useless: number[] = [];
  for (const { number, lsn } of rows) {
    const slot = await readSlot(source, generationName(m.id, number));
    if (slot === null || slot.lost !== null || !sameLsn(slot.confirmed, lsn)) useless.push(number);
  }
  return useless;
}

/**
 * The publications are left with what is finished: a subscription that is made later does not know the others, and
 * ignores what the slot still sends of them. Without anything finished, slot and publication go.
 */
async function withdraw(source: Session, target: Session, m: Migration, generation: number): Promise<void> {
  for (const [number, tables] of await readFinished(target, generation)) {
    const name = generationName(m.id, number);
    if (tables.size === 0) {
      await dropSlot(source, name);
      await dropPublication(source, name);
      // Rows that no slot follows, such as those of unlogged tables, were copied once and need no generation. The entry
      // stays, so that a late attempt to open it finds that it was, and makes nothing.
      await target.query(`UPDATE ${LEDGER_SCHEMA}.generation SET slot = false WHERE number = $1`, [number]);
    } else {
      await narrowPublication(source, name, tables);
      await target.query(
        `UPDATE ${LEDGER_SCHEMA}.generation SET state = 'sealed' WHERE number = $1 AND state = 'closing'`,
        [number],
      );
    }
  }
}

async function count(target: Session, generation: number, sealed: boolean): Promise<ClosedGeneration> {
  const tables = await target.one<Omit<ClosedGeneration, 'sealed'>>(
    `SELECT count(*) FILTER (WHERE generation <= $1)::float8 AS finished, count(*) FILTER (WHERE generation > $1)::float8 AS left,
            (SELECT count(*)::float8 FROM ${LEDGER_SCHEMA}.key_range k JOIN ${LEDGER_SCHEMA}.relation l ON l.oid = k.relation
              WHERE k.generation <= $1 AND l.generation > $1) AS ranges
       FROM ${LEDGER_SCHEMA}.relation`,
    [generation],
  );
  return { sealed, ...tables };
}
