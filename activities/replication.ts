import { applicationName, generationName, LEDGER_SCHEMA } from '../src/contract.ts';
import { MigrationError } from '../src/domain/failure.ts';
import { LIMITS } from '../src/domain/limits.ts';
import type { Migration } from '../src/domain/migration.ts';
import { endSessions } from '../src/postgres/backend.ts';
import type { Session } from '../src/postgres/connection.ts';
import { displayName, quoteLiteral } from '../src/postgres/identifier.ts';
import { bytesUnconfirmed, flushLsn } from '../src/postgres/lag.ts';
import { recordWarning } from '../src/postgres/ledger.ts';
import { dropPublication } from '../src/postgres/publication.ts';
import { isPublished, listTables } from '../src/postgres/scope.ts';
import { dropSlot, readSlot } from '../src/postgres/slot.ts';
import {
  createSubscription as subscribe,
  disableSubscriptions as disable,
  dropSubscription,
  enableSubscriptions as enable,
  readSubscriptions,
  subscriptionConnInfo,
} from '../src/postgres/subscription.ts';
import type { ActivityDeps } from './context.ts';
import { heartbeating, nextPoll, openSource, openTarget, withSession } from './context.ts';

export function createReplicationActivities(deps: ActivityDeps) {
  /** Both sides, and the names of all generations that have a slot. */
  const onBoth = <T>(
    m: Migration,
    doing: string,
    work: (source: Session, target: Session, names: string[]) => Promise<T>,
  ): Promise<T> =>
    withSession(openTarget(deps, m, 'control'), doing, async (target) =>
      withSession(openSource(deps, m, 'control'), doing, async (source) =>
        work(source, target, await generationNames(target, m)),
      ),
    );

  return {
    async createSubscription(m: Migration): Promise<void> {
      const endpoint = deps.endpoint(m.plan.sourceForTarget ?? m.plan.source, 'source');
      const conninfo = subscriptionConnInfo(endpoint.info, m.database);
      await withSession(openTarget(deps, m, 'control'), 'creating the subscription', async (target) => {
        for (const name of await generationNames(target, m)) await subscribe(target, name, conninfo);
        await target.query(
          `UPDATE ${LEDGER_SCHEMA}.generation SET state = 'streaming' WHERE slot AND state = 'sealed'`,
        );
      });
    },

    /** Until what was written during the copy is applied, but for what is being written now. */
    async waitForCatchUp(m: Migration): Promise<void> {
      await onBoth(m, 'waiting until the target has caught up', async (source, target, names) => {
        const errors = new ApplyErrors(m);
        let lagBytes: number | null = null;
        let waitingFor = '';
        await heartbeating(
          () => ({ lagBytes, waitingFor }),
          async () => {
            for (;;) {
              const health = await readSubscriptions(target, names);
              errors.look(health.applyErrors);
              lagBytes = await requireSlots(source, names, await flushLsn(source));
              waitingFor = health.waitingFor;
              if (health.ready && lagBytes <= LIMITS.caughtUpBytes) return;
              await nextPoll();
            }
          },
        );
      });
    },

    /**
     * Opens when several samples in a row find everything applied that was there a moment ago, but for `maxLagBytes`.
     * The plain difference of two positions is never 0 while somebody writes.
     */
    async waitForGate(m: Migration, maxLagBytes: number): Promise<void> {
      await onBoth(m, 'waiting at the gate', async (source, target, names) => {
        const errors = new ApplyErrors(m);
        let waitingFor = 'the first sample';
        let passed = 0;
        await heartbeating(
          () => ({ waitingFor, samplesPassed: passed, samplesNeeded: LIMITS.gateSamples }),
          async () => {
            while (passed < LIMITS.gateSamples) {
              const health = await readSubscriptions(target, names);
              errors.look(health.applyErrors);
              const prepared = await preparedTransactions(source);
              waitingFor = health.ready ? prepared : health.waitingFor;
              if (waitingFor === '' && (await sample(source, names, maxLagBytes))) passed += 1;
              else {
                passed = 0;
                waitingFor ||= `the target to confirm what was written a second ago, but for ${maxLagBytes} bytes`;
                await nextPoll();
              }
            }
          },
        );
        await warnOfNewTables(source, target, m);
      });
    },

    /** The last thing in the source's WAL that must arrive. A second mark is only a later one. */
    async mark(m: Migration): Promise<{ markLsn: string }> {
      return withSession(openSource(deps, m, 'control'), 'marking the end', async (source) => {
        await source.query('SET synchronous_commit = on');
        await source.query(`SELECT pg_logical_emit_message(true, 'pgtransit', $1)`, [m.id]);
        // A new statement: within the first one the message is not flushed yet. Flush, not insert: the insert position
        // may lie behind a page boundary that nobody confirms for seconds.
        return { markLsn: await flushLsn(source) };
      });
    },

    async waitForDrain(m: Migration, markLsn: string): Promise<void> {
      await onBoth(m, 'draining', async (source, target, names) => {
        const errors = new ApplyErrors(m);
        let bytesLeft: number | null = null;
        await heartbeating(
          () => ({ markLsn, bytesLeft }),
          async () => {
            for (;;) {
              bytesLeft = await requireSlots(source, names, markLsn);
              if (bytesLeft === 0) return;
              errors.look((await readSubscriptions(target, names)).applyErrors);
              await nextPoll(LIMITS.drainPollMs);
            }
          },
        );
      });
    },

    async disableSubscriptions(m: Migration): Promise<void> {
      await withSession(openTarget(deps, m, 'control'), 'disabling the subscriptions', async (target) =>
        disable(target, await generationNames(target, m)),
      );
    },

    async enableSubscriptions(m: Migration): Promise<void> {
      await withSession(openTarget(deps, m, 'control'), 'enabling the subscriptions', async (target) =>
        enable(target, await generationNames(target, m)),
      );
    },

    /**
     * Bytes of row changes in published tables that were committed on the source and that the target does not have:
     * what the slots still hold after the subscriptions were disabled. 0 is the proof that nothing was lost.
     */
    async walAfterMark(m: Migration, _markLsn: string): Promise<number> {
      return onBoth(m, 'looking for what was written after the mark', async (source, _target, names) => {
        let bytes = 0;
        for (const name of names) {
          const row = await source.one<{ bytes: number }>(
            // I, U, D, T: the messages of the protocol that carry rows (manual, 55.9).
            `SELECT coalesce(sum(length(data)) FILTER (WHERE get_byte(data, 0) IN (73, 85, 68, 84)), 0)::float8 AS bytes
               FROM pg_logical_slot_peek_binary_changes($1, NULL, ${LIMITS.peekChanges}, 'proto_version', '1', 'publication_names', $2)`,
            [name, `"${name}"`],
          );
          bytes += row.bytes;
        }
        return bytes;
      });
    },

    /** Subscription, slot and publication away, in the order in which nothing is left when it dies in between. */
    async dropReplication(m: Migration): Promise<void> {
      await onBoth(m, 'dropping the replication', async (source, target, names) => {
        for (const name of names) {
          const there = await target.query('SELECT FROM pg_subscription WHERE subname = $1', [name]);
          if (there.length > 0) await dropSubscription(target, name);
          await dropSlot(source, name);
          await dropPublication(source, name);
        }
        await endSessions(source, m.database, [applicationName(m.id, 'holder')]);
      });
    },
  };
}

async function generationNames(target: Session, m: Migration): Promise<string[]> {
  const rows = await target.query<{ number: number }>(
    `SELECT number FROM ${LEDGER_SCHEMA}.generation WHERE slot ORDER BY number`,
  );
  return rows.map(({ number }) => generationName(m.id, number));
}

/** @throws MigrationError `SlotLost` when a slot is gone or can no longer serve */
async function requireSlots(source: Session, names: string[], lsn: string): Promise<number> {
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

/** One sample of the gate: is what was flushed at its beginning confirmed within the time? */
async function sample(source: Session, names: string[], maxLagBytes: number): Promise<boolean> {
  // $1 may be more than was ever written; then nothing has to be confirmed.
  const { lsn } = await source.one<{ lsn: string }>(
    `SELECT ('0/0'::pg_lsn + greatest(pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0') - $1::numeric, 0))::text AS lsn`,
    [maxLagBytes],
  );
  for (const until = Date.now() + LIMITS.gateSampleMs; ;) {
    if ((await bytesUnconfirmed(source, names, lsn)) === 0) return true;
    if (Date.now() > until) return false;
    await nextPoll(LIMITS.drainPollMs);
  }
}

async function preparedTransactions(source: Session): Promise<string> {
  const rows = await source.query<{ gid: string }>(
    'SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY prepared LIMIT 3',
  );
  return rows.length === 0
    ? ''
    : `the end of the prepared transaction ${rows.map(({ gid }) => quoteLiteral(gid)).join(', ')}`;
}

/** A table that was created since the start is in nobody's publication: say so, since only its owner knows what to do. */
async function warnOfNewTables(source: Session, target: Session, m: Migration): Promise<void> {
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

/** An apply worker that fails is started again by the server, and fails again: the same error a few times is a fact. */
class ApplyErrors {
  readonly #m: Migration;
  #first: number | null = null;

  constructor(m: Migration) {
    this.#m = m;
  }

  look(count: number): void {
    this.#first ??= count;
    const since = count - this.#first;
    if (since < LIMITS.applyErrorsToFail) return;
    throw new MigrationError(
      'ApplyFailed',
      `The target cannot apply a change in database "${this.#m.database}": its apply worker failed ${since} times in a row. The target's server log names the relation and the row.`,
    );
  }
}
