import { displayName } from '../postgres/identifier.ts';
import { readCuts } from '../postgres/key-range.ts';
import { isPublished } from '../postgres/scope.ts';
import type { DatabaseContext, Seen } from './check.ts';

/** Tables that the plan wants in ranges of their key, and that can only be copied as a whole. */
export async function keyRanges({ plan, tables, source, target }: DatabaseContext): Promise<Seen[]> {
  const { rangeBytes } = plan.snapshot;
  if (rangeBytes === null) return [];
  const large = tables.filter((table) => isPublished(table) && table.bytes > rangeBytes);
  const cuts = await readCuts(source, target, large);
  return large.flatMap(({ oid, schema, name }) => {
    const cut = cuts.get(oid);
    if (cut === undefined || 'column' in cut) return [];
    const message = `The table is copied as a whole, and begins anew when its snapshot is lost, because ${cut.obstacle}.`;
    return [{ object: displayName(schema, name), message }];
  });
}
