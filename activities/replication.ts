import type { SessionRole } from '../src/contract.ts';
import { applicationName, generationName, LEDGER_SCHEMA, rangePrefix } from '../src/contract.ts';
import { LIMITS } from '../src/domain/limits.ts';
import type { Migration } from '../src/domain/migration.ts';
import { dropExtras, provideExtras } from '../src/postgres/aiven-extras.ts';
import { endSessions } from '../src/postgres/backend.ts';
import type { Session } from '../src/postgres/connection.ts';
import { quoteLiteral } from '../src/postgres/identifier.ts';
import { bytesUnconfirmed, emitMark, flushLsn, lsnBefore } from '../src/postgres/lag.ts';
import { publicationsOf, tablesOfSeveralGenerations } from '../src/postgres/key-range.ts';
import { dropPublication, dropPublications } from '../src/postgres/publication.ts';
import { dropSlot } from '../src/postgres/slot.ts';
import {
  createSubscription as subscribe,
  disableSubscriptions as disable,
  dropSubscription,
  enableSubscriptions as enable,
} from '../src/postgres/subscription.ts';
import { subscriptionConnInfo } from '../src/postgres/subscription-conninfo.ts';
import { transactionsInFlight } from '../src/postgres/transaction.ts';
import { allowTruncate, refuseTruncate } from '../src/postgres/truncate-refusal.ts';
import type { WrittenAfter } from '../src/postgres/written-after.ts';
import { writtenAfter } from '../src/postgres/written-after.ts';
import type { ActivityDeps } from './context.ts';
import { watchErrors } from './apply-errors.ts';
import { heartbeating, nextPoll, openSource, openTarget, withSession, withSessions } from './context.ts';
import {
  requireNoDifference,
  requireSequencesAhead,
  requirePublished,
  requireSealed,
  requireSlots,
  requireSlotsOfTheSnapshots,
  requireSubscribed,
  warnOfDifferences,
  warnOfNewTables,
  warnOfTruncatedTables,
} from './replication-guards.ts';

export function createReplicationActivities(deps: ActivityDeps) {
  /** Both sides, and the names of all generations that have a slot. */
  const onBoth = <T>(
    m: Migration,
    doing: string,
    work: (source: Session, target: Session, names: string[]) => Promise<T>,
    role: SessionRole = 'control',
  ): Promise<T> =>
    withSessions(deps, m, role, doing, async (source, target) =>
      work(source, target, await generationNames(target, m)),
    );

  return {
    async createSubscription(m: Migration): Promise<void> {
      const reader = m.plan.sourceForTarget === null ? 'worker' : 'target-server';
      const { info } = deps.endpoint(m.plan.sourceForTarget ?? m.plan.source, 'source', reader);
      const conninfo = subscriptionConnInfo(info, m.database, reader);
      await onBoth(m, 'creating the subscription', async (source, target, names) => {
        await requireSealed(target);
        await requireSlotsOfTheSnapshots(source, target, names);
        await provideExtras(target);
        const publications = await publicationsOf(target);
        await target.transaction(async () => refuseTruncate(target, await tablesOfSeveralGenerations(target)));
        for (const name of names) await subscribe(target, name, publications.get(name) ?? [name], conninfo);
        await target.query(
          `UPDATE ${LEDGER_SCHEMA}.generation SET state = 'streaming' WHERE slot AND state = 'sealed'`,
        );
      });
    },

    /** Until what was written during the copy is applied, but for what is being written now. */
    async waitForCatchUp(m: Migration): Promise<void> {
      await onBoth(m, 'waiting until the target has caught up', async (source, target, names) => {
        // After an operator's answer: whoever mends a table may have disabled them meanwhile.
        await enable(target, names);
        const look = watchErrors(m);
        let lagBytes: number | null = null;
        let waitingFor = '';
        await heartbeating(
          () => ({ lagBytes, waitingFor }),
          async () => {
            for (;;) {
              const health = await look({ source, target, names });
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
     * Ends only with what stops the replication, until it is cancelled. Nobody waits for that, so it changes nothing: it
     * could be in the way of the cutover that follows. Between two looks it has no sessions: with hundreds of databases
     * they would take the connections of the application.
     */
    async watchReplication(m: Migration): Promise<void> {
      const look = watchErrors(m);
      let waitingFor = '';
      await heartbeating(
        () => ({ waitingFor }),
        async () => {
          for (; ; await nextPoll(LIMITS.watchEveryMs))
            await onBoth(
              m,
              'watching the replication',
              async (source, target, names) => {
                await requireSlots(source, names, '0/0');
                await requirePublished(source, target, names);
                await requireSubscribed(m, source, target, names);
                waitingFor = (await look({ source, target, names })).waitingFor;
              },
              'probe',
            );
        },
      );
    },

    /**
     * Opens when several samples in a row find everything applied that was there a moment ago, but for `maxLagBytes`.
     * The plain difference of two positions is never 0 while somebody writes.
     */
    async waitForGate(m: Migration, maxLagBytes: number): Promise<void> {
      await onBoth(m, 'waiting at the gate', async (source, target, names) => {
        const look = watchErrors(m);
        let waitingFor = 'the first sample';
        let passed = 0;
        await heartbeating(
          () => ({ waitingFor, samplesPassed: passed, samplesNeeded: LIMITS.gateSamples }),
          async () => {
            while (passed < LIMITS.gateSamples) {
              const health = await look({ source, target, names });
              await requireSlots(source, names, '0/0');
              const prepared = await preparedTransactions(source);
              const inTheWay = health.ready ? prepared : health.waitingFor;
              if (inTheWay === '' && (await sample(source, names, maxLagBytes))) passed += 1;
              else {
                passed = 0;
                waitingFor =
                  inTheWay || `the target to confirm what was written a second ago, but for ${maxLagBytes} bytes`;
                await nextPoll();
              }
            }
          },
        );
        await requirePublished(source, target, names);
        await requireSubscribed(m, source, target, names);
        await requireNoDifference(target);
        await requireSequencesAhead(source, target);
        await warnOfNewTables(source, target, m);
        await warnOfDifferences(m, source, target);
      });
    },

    /**
     * The last thing in the source's WAL that must arrive, after the end of what is under way now: that commits at any
     * time, fence or not. A second mark is only a later one.
     */
    async mark(m: Migration): Promise<{ markLsn: string }> {
      return withSession(openSource(deps, m, 'control'), 'marking the end', async (source) => {
        await waitForTransactions(source, m.id);
        return { markLsn: await emitMark(source, m.id) };
      });
    },

    async waitForDrain(m: Migration, markLsn: string): Promise<void> {
      await onBoth(m, 'draining', async (source, target, names) => {
        const look = watchErrors(m);
        let bytesLeft: number | null = null;
        let waitingFor = '';
        await heartbeating(
          () => ({ markLsn, bytesLeft, waitingFor }),
          async () => {
            for (;;) {
              bytesLeft = await requireSlots(source, names, markLsn);
              if (bytesLeft === 0) break;
              const health = await look({ source, target, names });
              waitingFor = [health.waitingFor, `the target to confirm ${bytesLeft} bytes`]
                .filter(Boolean)
                .join(', and ');
              await nextPoll(LIMITS.drainPollMs);
            }
          },
        );
        await requirePublished(source, target, names);
        await requireSubscribed(m, source, target, names);
        await warnOfTruncatedTables(source, target);
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

    /** What `writtenAfter` finds on the slots of all generations. Only looks, beside the step that carries the sequences. */
    async walAfterMark(m: Migration): Promise<WrittenAfter> {
      return onBoth(
        m,
        'looking for what was written after the mark',
        async (source, target, names) => {
          // Decoding sees what is flushed: what the application committed asynchronously is to be seen too.
          await emitMark(source, m.id);
          await requireSlots(source, names, '0/0');
          return writtenAfter(source, target, names);
        },
        'probe',
      );
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
        await dropPublications(source, rangePrefix(m.id));
        await allowTruncate(target);
        await dropExtras(target);
        await endSessions(source, m.database, [applicationName(m.id, 'holder')]);
      });
    },
  };
}

export async function generationNames(target: Session, m: Migration): Promise<string[]> {
  const rows = await target.query<{ number: number }>(
    `SELECT number FROM ${LEDGER_SCHEMA}.generation WHERE slot ORDER BY number`,
  );
  return rows.map(({ number }) => generationName(m.id, number));
}

/** One sample of the gate: is what was flushed at its beginning confirmed within the time? */
export async function sample(source: Session, names: string[], maxLagBytes: number): Promise<boolean> {
  const lsn = lsnBefore(await flushLsn(source), maxLagBytes);
  for (const until = Date.now() + LIMITS.gateSampleMs; ;) {
    if ((await bytesUnconfirmed(source, names, lsn)) === 0) return true;
    if (Date.now() > until) return false;
    await nextPoll(LIMITS.gatePollMs);
  }
}

/** Until those that were under way at the beginning have ended; the heartbeat names them. */
export async function waitForTransactions(session: Session, id: string): Promise<void> {
  const atFirst = new Set((await transactionsInFlight(session, id)).map(({ xid }) => xid));
  let left: string[] = [];
  await heartbeating(
    () => ({ waitingFor: left.length === 0 ? '' : `the end of ${left.join(', ')}` }),
    async () => {
      for (;;) {
        const now = (await transactionsInFlight(session, id)).filter(({ xid }) => atFirst.has(xid));
        if (now.length === 0) return;
        left = now.slice(0, LIMITS.namesInMessage).map(({ who }) => who);
        await nextPoll(LIMITS.drainPollMs);
      }
    },
  );
}

async function preparedTransactions(source: Session): Promise<string> {
  const rows = await source.query<{ gid: string }>(
    'SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY prepared LIMIT 3',
  );
  return rows.length === 0
    ? ''
    : `the end of the prepared transaction ${rows.map(({ gid }) => quoteLiteral(gid)).join(', ')}`;
}
