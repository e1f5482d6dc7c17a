import { generationName, LEDGER_SCHEMA, NAME_PREFIX } from '../src/contract.ts';
import { MigrationError } from '../src/domain/failure.ts';
import { LIMITS } from '../src/domain/limits.ts';
import type { Migration } from '../src/domain/migration.ts';
import { endsSessions } from '../src/domain/plan.ts';
import type { Rehearsal, RehearsedStep } from '../src/domain/readiness.ts';
import { expectedDowntime } from '../src/domain/readiness.ts';
import type { Session } from '../src/postgres/connection.ts';
import { emitMark } from '../src/postgres/lag.ts';
import { furthest, missingSequences, readSequences } from '../src/postgres/sequence.ts';
import { readSubscriptions } from '../src/postgres/subscription.ts';
import { quoteName } from '../src/postgres/identifier.ts';
import { readWriteCounters } from '../src/postgres/write-counters.ts';
import type { ActivityDeps } from './context.ts';
import { heartbeating, nextPoll, openSource, openTarget, withSession } from './context.ts';
import { requirePublished, requireSlots } from './replication-guards.ts';
import { sample } from './replication.ts';
import { sameSinceCompared } from './verify-streaming.ts';

export function createRehearsalActivities(deps: ActivityDeps) {
  return {
    /**
     * What a stop does, but for the fence and for all that it changes; a mark in the WAL is all that stays. Writers go on,
     * so the drain takes what is written meanwhile along: the real one has less to do. What cannot be done without
     * changing something is estimated, and says so.
     * @throws MigrationError `NotComplete` when the gate or the drain takes so long that a stop would not come to its end
     */
    async rehearseStop(m: Migration): Promise<Rehearsal> {
      return withSession(openTarget(deps, m, 'probe'), 'rehearsing the stop', (target) =>
        withSession(openSource(deps, m, 'probe'), 'rehearsing the stop', async (source) => {
          const generations = await target.query<{ number: number }>(
            `SELECT number FROM ${LEDGER_SCHEMA}.generation WHERE slot ORDER BY number`,
          );
          const names = generations.map(({ number }) => generationName(m.id, number));
          const steps: RehearsedStep[] = [];
          let now = '';
          const measured = async <T>(name: string, work: () => Promise<T>): Promise<T> => {
            now = name;
            const began = performance.now();
            const result = await work();
            steps.push({ name, ms: Math.round(performance.now() - began), estimated: false });
            return result;
          };
          const estimate = (name: string, ms: number) => steps.push({ name, ms: Math.round(ms), estimated: true });
          return heartbeating(
            () => ({ waitingFor: now }),
            async () => {
              const { health, roundTripMs } = await probe(source, target, names);
              if (names.length === 0 || !health.ready)
                throw new MigrationError(
                  'NotComplete',
                  `A stop cannot be rehearsed now: ${names.length === 0 ? 'nothing is replicated yet' : health.waitingFor}.`,
                  { object: m.database, next: 'Wait until the database streams, then rehearse again.' },
                );
              await measured('waitForGate', () => gate(m, source, target, names));
              // Every other session of the database is ended, and then it is looked twice that none is left.
              const { fence, deadlineSeconds } = m.plan.stop;
              const ended = endsSessions(fence);
              if (ended) estimate('fence', 2 * LIMITS.fencePollMs + roundTripMs * 4 + (await sessions(source, m)));
              const markLsn = await measured('mark', () => emitMark(source, m.id));
              await measured('waitForDrain', () => drain(m, source, names, markLsn));
              // Workers end between two transactions, and are looked for at each poll.
              estimate('disableSubscriptions', LIMITS.drainPollMs + roundTripMs * (names.length + 2));
              if (m.plan.verify === 'full' && fence !== 'none')
                estimate('verifyFenced', Math.min(deadlineSeconds * 1000, await comparing(source, target, ended)));
              await measured('carryOver', () => computeSequences(source, target));
              const again = await copiedAgain(source, target, ended);
              if (again > 0) estimate('carryOver', (again / LIMITS.rehearsedBytesPerSecond) * 1000);
              estimate('walAfterMark', (LIMITS.drainPollMs + roundTripMs * 3) * names.length);
              if (m.plan.reverse !== false) estimate('armReverse', LIMITS.armReverseMs + roundTripMs * 10);
              return { steps, expectedDowntimeMs: expectedDowntime(steps) };
            },
          );
        }),
      );
    },
  };
}

async function probe(source: Session, target: Session, names: string[]) {
  const health = await readSubscriptions(target, names);
  const began = performance.now();
  await source.query('SELECT 1');
  await target.query('SELECT 1');
  return { health, roundTripMs: (performance.now() - began) / 2 };
}

/** As `waitForGate`, but for the warnings that that one books, and with an end. */
async function gate(m: Migration, source: Session, target: Session, names: string[]): Promise<void> {
  const until = performance.now() + LIMITS.rehearseMs;
  for (let passed = 0; passed < LIMITS.gateSamples;) {
    if (await sample(source, names, m.plan.stop.maxLagBytes)) passed += 1;
    else {
      passed = 0;
      if (performance.now() > until) throw tooSlow(m, 'the gate did not open');
      await nextPoll();
    }
  }
  await requirePublished(source, target, names);
}

async function drain(m: Migration, source: Session, names: string[], markLsn: string): Promise<void> {
  for (const until = performance.now() + LIMITS.rehearseMs; (await requireSlots(source, names, markLsn)) > 0;) {
    if (performance.now() > until) throw tooSlow(m, 'the target did not confirm the mark');
    await nextPoll(LIMITS.drainPollMs);
  }
}

const tooSlow = (m: Migration, what: string): MigrationError =>
  new MigrationError(
    'NotComplete',
    `In the rehearsal of the stop of database "${m.database}" ${what} within ${LIMITS.rehearseMs / 1000} s.`,
    { object: m.database, next: 'Look at the lag and at the apply worker, then rehearse again.' },
  );

/** All that `carryOver` does before it sets them. */
async function computeSequences(source: Session, target: Session): Promise<void> {
  const states = await readSequences(source);
  await missingSequences(target, states);
  const name = (state: { schema: string; name: string }) => quoteName(state.schema, state.name);
  const there = new Map((await readSequences(target)).map((state) => [name(state), state]));
  for (const state of states) furthest(state, there.get(name(state)));
}

/** A millisecond for each that the fence would end. */
const sessions = async (source: Session, m: Migration): Promise<number> =>
  (
    await source.one<{ count: number }>(
      `SELECT count(*)::float8 AS count FROM pg_stat_activity
        WHERE datname = current_database() AND backend_type = 'client backend' AND left(application_name, length($1)) <> $1`,
      [`${NAME_PREFIX}${m.id}_`],
    )
  ).count;

/** Milliseconds, by what each part took while it streamed, of the tables that would be read again now. */
async function comparing(source: Session, target: Session, ended: boolean): Promise<number> {
  const unchanged = ended ? await sameSinceCompared(source, target) : new Set<number>();
  const tables = await target.query<{ oid: number; bytes: number; seconds: number | null }>(
    `SELECT r.oid::float8 AS oid, r.bytes::float8 AS bytes, sum(c.seconds) AS seconds
       FROM ${LEDGER_SCHEMA}.relation r LEFT JOIN ${LEDGER_SCHEMA}.comparison c ON c.relation = r.oid WHERE r.published GROUP BY r.oid`,
  );
  const seconds = tables
    .filter(({ oid }) => !unchanged.has(oid))
    .reduce((sum, table) => sum + (table.seconds ?? table.bytes / LIMITS.rehearsedBytesPerSecond), 0);
  return (seconds * 1000) / LIMITS.verifySessions;
}

/** Bytes of what no stream brings: unlogged tables, and large objects where it is not known which have changed. */
async function copiedAgain(source: Session, target: Session, ended: boolean): Promise<number> {
  const relations = await target.query<{ oid: number }>(
    `SELECT oid::float8 AS oid FROM ${LEDGER_SCHEMA}.relation WHERE NOT published AND condition IS NULL`,
  );
  const { unlogged, largeObjects } = await source.one<{ unlogged: number; largeObjects: number }>(
    `SELECT (SELECT coalesce(sum(pg_table_size(oid)), 0)::float8 FROM pg_class WHERE oid = ANY ($1::oid[]) AND relpersistence = 'u') AS unlogged,
            CASE WHEN EXISTS (SELECT FROM pg_largeobject_metadata) THEN pg_table_size('pg_catalog.pg_largeobject') ELSE 0 END::float8 AS "largeObjects"`,
    [relations.map(({ oid }) => oid)],
  );
  return unlogged + (ended && (await readWriteCounters(source)) !== null ? 0 : largeObjects);
}
