import { generationName, generationPrefix, LEDGER_SCHEMA } from '../src/contract.ts';
import { LIMITS } from '../src/domain/limits.ts';
import type { Measurement, Migration } from '../src/domain/migration.ts';
import type { Session } from '../src/postgres/connection.ts';
import { readLag, readRetainedWal } from '../src/postgres/lag.ts';
import { readLockWait } from '../src/postgres/lock-wait.ts';
import { toMigrationError } from '../src/postgres/sqlstate.ts';
import { droppedSubscriptions, wasDropped } from '../src/postgres/subscription.ts';
import { readCopyProgress } from '../src/postgres/unit.ts';
import type { ActivityDeps } from './context.ts';
import { activitySignal, openSource, openTarget, withSession } from './context.ts';
import { describeDifferences } from './definitions.ts';

export function createMeasureActivities(deps: ActivityDeps) {
  return {
    /**
     * A look for people: a handful of cheap queries, and nothing is written. When one server cannot be asked the other
     * one is all the same: while the target is down, the source keeps more and more WAL for it.
     */
    async measure(m: Migration): Promise<Measurement> {
      const problems: string[] = [];
      const opened = async (server: 'source' | 'target'): Promise<Session | null> => {
        try {
          return await (server === 'source' ? openSource : openTarget)(deps, m, 'probe');
        } catch (error) {
          activitySignal().throwIfAborted();
          problems.push(toMigrationError(error, { server, doing: 'measuring' }).message);
          return null;
        }
      };
      const source = m.method === 'replication' ? await opened('source') : null;
      try {
        const retainedBytes = source && (await readRetainedWal(source, generationPrefix(m.id)));
        const target = await opened('target');
        const seen = target && (await withSession(Promise.resolve(target), 'measuring', (t) => look(m, source, t)));
        if (seen?.problem != null) problems.push(seen.problem);
        return { lagBytes: null, ...seen, retainedBytes, problem: problems.length === 0 ? null : problems.join(' ') };
      } finally {
        await source?.close();
      }
    },
  };
}

async function look(
  m: Migration,
  source: Session | null,
  target: Session,
): Promise<Omit<Measurement, 'retainedBytes'>> {
  const copy = await readCopyProgress(target);
  const generations = await target.query<{ number: number }>(
    `SELECT number FROM ${LEDGER_SCHEMA}.generation WHERE slot ORDER BY number`,
  );
  const waiting = await readLockWait(target, m.id, LIMITS.lockWaitWorthMentioningMs);
  if (generations.length === 0 || source === null) return { ...copy, lagBytes: null, problem: waiting };
  const names = generations.map(({ number }) => generationName(m.id, number));
  const lag = await readLag(source, target, names);
  const [dropped] = await droppedSubscriptions(target);
  const problem = lag.problem ?? (dropped === undefined ? waiting : wasDropped(dropped));
  // Before it streams the target lacks keys and constraints of its own accord.
  const compared = lag.lagBytes !== null && copy.tables.total <= LIMITS.tablesComparedOften;
  const differences = compared ? await describeDifferences(m, source, target) : [];
  return { ...copy, ...lag, problem: [...(problem === null ? [] : [problem]), ...differences].join(' ') || null };
}
