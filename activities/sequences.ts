import { LEDGER_SCHEMA } from '../src/contract.ts';
import { LIMITS } from '../src/domain/limits.ts';
import type { Migration } from '../src/domain/migration.ts';
import { displayName, quoteName } from '../src/postgres/identifier.ts';
import { underSnapshot } from '../src/postgres/import-snapshot.ts';
import { recordWarning } from '../src/postgres/ledger.ts';
import type { Session } from '../src/postgres/connection.ts';
import type { SequenceState } from '../src/postgres/sequence.ts';
import { furthest, listSequences, missingSequences, readSequences, setSequences } from '../src/postgres/sequence.ts';
import type { ActivityDeps } from './context.ts';
import { openSource, openTarget, withSession } from './context.ts';
import { bookSequencesBehind } from './replication-guards.ts';

const nameOf = ({ schema, name }: { schema: string; name: string }): string => quoteName(schema, name);

export function createSequenceActivities(deps: ActivityDeps) {
  return {
    /** Those that the snapshot sees, and so the schema has, as they stand now: at or after the snapshot. */
    async copySequences(m: Migration, generation: number): Promise<{ sequences: number }> {
      return withSession(openTarget(deps, m, 'control'), 'setting the sequences', async (target) => {
        const { snapshot } = await target.one<{ snapshot: string }>(
          `SELECT snapshot FROM ${LEDGER_SCHEMA}.generation WHERE number = $1`,
          [generation],
        );
        const states = await withSession(openSource(deps, m, 'control'), 'reading the sequences', async (source) => {
          const seen = new Set((await underSnapshot(source, snapshot, () => listSequences(source))).map(nameOf));
          if (generation === 0) await bookSequencesBehind(source, target);
          return (await readSequences(source)).filter((state) => seen.has(nameOf(state)));
        });
        // Of a later generation, some may have been created after the schema was taken; the last sync names them.
        const missing = new Set(generation === 0 ? [] : (await missingSequences(target, states)).map(nameOf));
        const there = states.filter((state) => !missing.has(nameOf(state)));
        await setSequences(target, there);
        return { sequences: there.length };
      });
    },
  };
}

/**
 * The same after the subscriptions are disabled, and never backwards. Read before, they were behind the rows. A sequence
 * that was created after the start is in no plan, as its table is not: said, and no reason not to stop. Answers how many.
 */
export async function syncSequences(source: Session, target: Session): Promise<number> {
  const [states, there] = await Promise.all([readSequences(source), readSequences(target)]);
  const missing = await missingSequences(target, states);
  for (const { schema, name } of missing.slice(0, LIMITS.namesInMessage))
    await recordWarning(
      target,
      'carryOver',
      `Sequence ${displayName(schema, name)} is not on the target: it was created on the source after the start, or dropped on the target.`,
    );
  return carrySequences(target, states, there, missing);
}

/** Sets those that are there, and none to before what it was there (`before`). Returns how many. */
export async function carrySequences(
  session: Session,
  states: readonly SequenceState[],
  before: readonly SequenceState[],
  missing: readonly SequenceState[],
): Promise<number> {
  const lacking = new Set(missing.map(nameOf));
  const there = new Map(before.map((state) => [nameOf(state), state]));
  const known = states.filter((state) => !lacking.has(nameOf(state)));
  await setSequences(
    session,
    known.map((state) => furthest(state, there.get(nameOf(state)))),
  );
  return known.length;
}
