import type { SessionRole } from '../src/contract.ts';
import { LEDGER_SCHEMA, reverseName } from '../src/contract.ts';
import { MigrationError } from '../src/domain/failure.ts';
import { LIMITS } from '../src/domain/limits.ts';
import type { Measurement, Migration } from '../src/domain/migration.ts';
import { watchApply } from '../src/postgres/apply-watch.ts';
import type { Session } from '../src/postgres/connection.ts';
import { readFailingChange } from '../src/postgres/failing-change.ts';
import { bookFence, forgetFence, readFence, readOnlySetting, setReadOnly } from '../src/postgres/fence.ts';
import { bytesUnconfirmed, confirmedLsn, emitMark, readLag, readRetainedWal } from '../src/postgres/lag.ts';
import { requireOwnLedger } from '../src/postgres/ledger.ts';
import { createPublication, dropPublication } from '../src/postgres/publication.ts';
import { missingSequences, readSequences } from '../src/postgres/sequence.ts';
import { createSlotAlone, dropSlot, readSlot } from '../src/postgres/slot.ts';
import {
  createSubscription,
  disableSubscriptions,
  dropSubscription,
  enableSubscriptions,
  readSubscriptions,
} from '../src/postgres/subscription.ts';
import { subscriptionConnInfo } from '../src/postgres/subscription-conninfo.ts';
import type { WrittenAfter } from '../src/postgres/written-after.ts';
import { writtenAfter } from '../src/postgres/written-after.ts';
import type { ActivityDeps } from './context.ts';
import { heartbeating, nextPoll, openSource, openTarget, withSession, withSessions } from './context.ts';
import { targetForSource } from './endpoints.ts';
import { endWriters, requireRights } from './fence.ts';
import { waitForTransactions } from './replication.ts';
import { carrySequences } from './sequences.ts';

/** The stream from the target back to the source after a cutover, and the way back along it. */
export function createReverseActivities(deps: ActivityDeps) {
  const onBoth = <T>(
    m: Migration,
    doing: string,
    work: (source: Session, target: Session, name: string) => Promise<T>,
    role: SessionRole = 'control',
  ): Promise<T> => withSessions(deps, m, role, doing, (source, target) => work(source, target, reverseName(m.id)));

  return {
    /**
     * Publication and slot on the target, subscription on the source, without copying: both have the same rows, since the
     * target has applied all and nobody may write to it yet. The slot begins after what it has applied, so nothing comes
     * back. Each step finds what an earlier attempt has done; a slot is there only when its publication is whole.
     */
    async armReverse(m: Migration): Promise<void> {
      await onBoth(m, 'arming the reverse replication', async (source, target, name) => {
        await requireOwnLedger(target, m);
        const back = targetForSource(deps, m.plan);
        if (back === null) throw new MigrationError('InvalidPlan', 'The plan has no "reverse".');
        if ((await readSlot(target, name)) === null) {
          await createPublication(target, name, await replicatedTables(source, target));
          await createSlotAlone(target, name);
        }
        await createSubscription(source, name, [name], subscriptionConnInfo(back.info, m.database, back.reader));
      });
    },

    /** Subscription, slot and publication away, also of an attempt that came only halfway. */
    async dropReverse(m: Migration): Promise<void> {
      await onBoth(m, 'dropping the reverse replication', async (source, target, name) => {
        const there = await source.query('SELECT FROM pg_subscription WHERE subname = $1', [name]);
        if (there.length > 0) await dropSubscription(source, name);
        await dropSlot(target, name);
        await dropPublication(target, name);
      });
    },

    /** A look for people. */
    async measureReverse(m: Migration): Promise<Pick<Measurement, 'lagBytes' | 'retainedBytes' | 'problem'>> {
      return onBoth(
        m,
        'measuring the reverse replication',
        async (source, target, name) => ({
          ...(await readLag(target, source, [name])),
          retainedBytes: await readRetainedWal(target, name),
        }),
        'probe',
      );
    },

    /**
     * Ends only with what stops the reverse replication, until it is cancelled; changes nothing.
     * @throws MigrationError `ReverseFailed`: the target serves all the same
     */
    async watchReverse(m: Migration): Promise<void> {
      const watch = watchApply();
      let waitingFor = '';
      await heartbeating(
        () => ({ waitingFor }),
        async () => {
          for (; ; await nextPoll(LIMITS.watchEveryMs))
            await onBoth(
              m,
              'watching the reverse replication',
              async (source, target, name) => {
                await requireReverse(m, source, target, name);
                const health = await readSubscriptions(source, [name]);
                waitingFor = health.waitingFor;
                const confirmed = await confirmedLsn(target, [name]);
                const now = performance.now();
                const failure = watch({ at: now, errors: health.applyErrors, idle: health.idle, confirmed });
                if (failure !== null) throw await cannotApply(m, source, target, name, failure);
              },
              'probe',
            );
        },
      );
    },

    /** Read-only by default from now on, and no session from before left. What was set before is booked first. */
    async fenceTarget(m: Migration): Promise<void> {
      await withSession(openTarget(deps, m, 'control'), 'fencing the target', async (target) => {
        await requireOwnLedger(target, m);
        await requireRights(target);
        await bookFence(target, { kind: 'read-only', before: await readOnlySetting(target) }, 'target fence');
        await setReadOnly(target, 'on');
        await endWriters(target, m, 'read-only');
      });
    },

    async unfenceTarget(m: Migration): Promise<void> {
      await withSession(openTarget(deps, m, 'control'), 'lifting the fence on the target', async (target) => {
        await requireOwnLedger(target, m);
        const fence = await readFence(target, 'target fence');
        if (fence?.kind === 'read-only') await setReadOnly(target, fence.before);
        await forgetFence(target, 'target fence');
      });
    },

    /** Waits for the transactions under way on the target, marks the end in its WAL, and waits until the source has it. */
    async drainBack(m: Migration): Promise<{ markLsn: string }> {
      return onBoth(m, 'draining the reverse replication', async (source, target, name) => {
        await waitForTransactions(target, m.id);
        const markLsn = await emitMark(target, m.id);
        let bytesLeft: number | null = null;
        await heartbeating(
          () => ({ markLsn, bytesLeft }),
          async () => {
            for (;;) {
              await requireReverse(m, source, target, name);
              bytesLeft = await bytesUnconfirmed(target, [name], markLsn);
              if (bytesLeft === 0) return;
              await nextPoll(LIMITS.drainPollMs);
            }
          },
        );
        return { markLsn };
      });
    },

    /** Ends the apply worker on the source, carries the sequences back, and says what the target wrote after the mark. */
    async closeBack(m: Migration): Promise<WrittenAfter> {
      return onBoth(m, 'carrying the sequences back', async (source, target, name) => {
        await requireOwnLedger(target, m);
        await disableSubscriptions(source, [name]);
        const [states, there] = await Promise.all([readSequences(target), readSequences(source)]);
        await carrySequences(source, states, there, await missingSequences(source, states));
        await emitMark(target, m.id);
        return writtenAfter(target, source, [name]);
      });
    },

    async enableReverse(m: Migration): Promise<void> {
      await withSession(openSource(deps, m, 'control'), 'enabling the reverse replication', (source) =>
        enableSubscriptions(source, [reverseName(m.id)]),
      );
    },
  };
}

/** By the names that they have now. */
async function replicatedTables(source: Session, target: Session): Promise<{ schema: string; name: string }[]> {
  const published = await target.query<{ oid: number }>(
    `SELECT oid::float8 AS oid FROM ${LEDGER_SCHEMA}.relation WHERE published`,
  );
  return source.query(
    `SELECT n.nspname AS schema, c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE c.oid = ANY ($1::oid[]) ORDER BY 1, 2`,
    [published.map(({ oid }) => oid)],
  );
}

/** @throws MigrationError `ReverseFailed` when a part of it is gone or disabled */
async function requireReverse(m: Migration, source: Session, target: Session, name: string): Promise<void> {
  const slot = await readSlot(target, name);
  const [subscription] = await source.query<{ enabled: boolean }>(
    `SELECT subenabled AS enabled FROM pg_subscription WHERE subname = $1`,
    [name],
  );
  const what =
    slot === null
      ? `slot ${name} was dropped on the target`
      : slot.lost !== null
        ? `slot ${name} on the target is lost: ${slot.lost}`
        : subscription === undefined
          ? `subscription ${name} was dropped on the source`
          : subscription.enabled
            ? null
            : `subscription ${name} is disabled on the source`;
  if (what !== null)
    throw new MigrationError('ReverseFailed', `The source no longer follows database "${m.database}": ${what}.`, {
      object: name,
    });
}

async function cannotApply(
  m: Migration,
  source: Session,
  target: Session,
  name: string,
  failure: string,
): Promise<MigrationError> {
  const found = await readFailingChange(target, source, name);
  const tables = (found?.tables ?? []).slice(0, LIMITS.namesInMessage).join(', ');
  const where = tables === '' ? '' : ` of ${tables}`;
  const why = found?.reason ?? `${failure}, and the source's server log names the relation and the row`;
  return new MigrationError(
    'ReverseFailed',
    `The source cannot apply a change${where} in database "${m.database}": ${why}.`,
    { object: found?.tables[0] ?? null },
  );
}
