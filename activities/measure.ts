import { generationName, LEDGER_SCHEMA } from '../src/contract.ts';
import { LIMITS } from '../src/domain/limits.ts';
import type { Measurement, Migration } from '../src/domain/migration.ts';
import { readLag } from '../src/postgres/lag.ts';
import { readLockWait } from '../src/postgres/lock-wait.ts';
import { droppedSubscriptions, wasDropped } from '../src/postgres/subscription.ts';
import { readCopyProgress } from '../src/postgres/unit.ts';
import type { ActivityDeps } from './context.ts';
import { openSource, openTarget, withSession } from './context.ts';

export function createMeasureActivities(deps: ActivityDeps) {
  return {
    /** A look for people: a handful of cheap queries, and nothing is written. */
    async measure(m: Migration): Promise<Measurement> {
      return withSession(openTarget(deps, m, 'control'), 'measuring the progress', async (target) => {
        const copy = await readCopyProgress(target);
        const generations = await target.query<{ number: number }>(
          `SELECT number FROM ${LEDGER_SCHEMA}.generation WHERE slot ORDER BY number`,
        );
        const waiting = await readLockWait(target, m.id, LIMITS.lockWaitWorthMentioningMs);
        if (generations.length === 0) return { ...copy, lagBytes: null, retainedBytes: null, problem: waiting };
        const names = generations.map(({ number }) => generationName(m.id, number));
        const lag = await withSession(openSource(deps, m, 'control'), 'measuring the lag', (source) =>
          readLag(source, target, names),
        );
        const [dropped] = await droppedSubscriptions(target);
        const problem = lag.problem ?? (dropped === undefined ? waiting : wasDropped(dropped));
        return { ...copy, ...lag, problem };
      });
    },
  };
}
