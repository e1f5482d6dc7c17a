import type { LaneProgress, Migration } from '../src/domain/migration.ts';
import { Bell, ring } from '../src/postgres/bell.ts';
import type { Session } from '../src/postgres/connection.ts';
import { buildIndex, finishTables } from '../src/postgres/table-finish.ts';
import { claimIndexUnit, findUnfinished, finishUnits } from '../src/postgres/unit.ts';
import type { ActivityDeps } from './context.ts';
import { heartbeating, nextPollOr, withSession } from './context.ts';
import { flushLane, openLaneTarget, takeOverLane } from './lane-sessions.ts';

export function createIndexActivities(deps: ActivityDeps) {
  return {
    /**
     * One of several lanes that build indexes while tables are still being copied. Ends when no index and no key is
     * unfinished, so it waits for the copy and for other lanes. `tables` of the result: those it finished.
     */
    async buildIndexes(m: Migration, lane: number): Promise<LaneProgress> {
      const progress: LaneProgress = { tables: 0, rows: 0, bytes: 0, current: null };
      await heartbeating(
        () => ({ ...progress }),
        () =>
          withSession(openLaneTarget(deps, m, 'index'), 'building indexes', async (target) => {
            const self = { kind: 'index', lane };
            await takeOverLane(target, self, [target]);
            const bell = await Bell.on(target);
            while (await buildNext(target, progress, bell));
            await flushLane(target, self);
          }),
      );
      return progress;
    },
  };
}

/** One transaction: claim, build, mark as done. False when everything is. */
async function buildNext(target: Session, progress: LaneProgress, bell: Bell): Promise<boolean> {
  const found = await target.transaction(async () => {
    const unit = await claimIndexUnit(target);
    if (unit === undefined) return false;
    progress.current = unit.label;
    const began = performance.now();
    if (unit.position === null) {
      await finishTables(target, [unit], false);
      progress.tables += 1;
    } else {
      await buildIndex(target, unit.position, unit);
    }
    await finishUnits(target, [{ id: unit.id, rows: null }], (performance.now() - began) / 1000);
    await ring(target);
    return true;
  });
  progress.current = null;
  if (found) return true;
  if ((await findUnfinished(target, null, ['index', 'key'])).length === 0) return false;
  await nextPollOr(bell);
  return true;
}
