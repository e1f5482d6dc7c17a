import type { Migration } from '../src/domain/migration.ts';
import { quoteName } from '../src/postgres/identifier.ts';
import { furthest, readSequences, setSequences } from '../src/postgres/sequence.ts';
import type { ActivityDeps } from './context.ts';
import { openSource, openTarget, withSession } from './context.ts';

export function createSequenceActivities(deps: ActivityDeps) {
  return {
    /** As they stand now, which is at or after the snapshot. */
    async copySequences(m: Migration, _generation: number): Promise<{ sequences: number }> {
      const states = await withSession(openSource(deps, m, 'control'), 'reading the sequences', readSequences);
      await withSession(openTarget(deps, m, 'control'), 'setting the sequences', (target) =>
        setSequences(target, states),
      );
      return { sequences: states.length };
    },

    /** The same after the subscriptions are disabled, and never backwards. Read before, they were behind the rows. */
    async syncSequences(m: Migration): Promise<{ sequences: number }> {
      const states = await withSession(openSource(deps, m, 'control'), 'reading the sequences', readSequences);
      await withSession(openTarget(deps, m, 'control'), 'setting the sequences', async (target) => {
        const there = new Map(
          (await readSequences(target)).map((state) => [quoteName(state.schema, state.name), state]),
        );
        await setSequences(
          target,
          states.map((state) => furthest(state, there.get(quoteName(state.schema, state.name)))),
        );
      });
      return { sequences: states.length };
    },
  };
}
