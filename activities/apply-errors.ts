import { MigrationError } from '../src/domain/failure.ts';
import { LIMITS } from '../src/domain/limits.ts';
import type { Migration } from '../src/domain/migration.ts';
import { watchApply } from '../src/postgres/apply-watch.ts';
import type { Session } from '../src/postgres/connection.ts';
import type { FailingChange } from '../src/postgres/failing-change.ts';
import { readFailingChange } from '../src/postgres/failing-change.ts';
import { quoteIdent } from '../src/postgres/identifier.ts';
import { confirmedLsn } from '../src/postgres/lag.ts';
import type { SubscriptionHealth } from '../src/postgres/subscription.ts';
import { droppedSubscriptions, readSubscriptions, readWorkers, wasDropped } from '../src/postgres/subscription.ts';
import { describeDifferences } from './definitions.ts';
import { requireSubscribed } from './replication-guards.ts';

/** What a look at the replication needs. */
export interface BothSides {
  source: Session;
  target: Session;
  /** Of the generations that have a slot. */
  names: string[];
}

/**
 * Looks at the apply workers again and again, also through one pair of sessions after the other. One that is away is
 * suspected: what it gets next is tried, so that a change that cannot be applied is known, with relation and reason,
 * before the worker has failed often enough to be sure.
 * @throws MigrationError `ApplyFailed`, `SlotLost` without a subscription
 */
export function watchErrors(m: Migration): (sides: BothSides) => Promise<SubscriptionHealth> {
  const watch = watchApply();
  let wasIdle = false;
  let triedAt = -Infinity;
  return async ({ source, target, names }) => {
    const health = await readSubscriptions(target, names);
    const [dropped] = await droppedSubscriptions(target);
    if (dropped !== undefined) throw new MigrationError('SlotLost', wasDropped(dropped), { object: dropped });
    const confirmed = await confirmedLsn(source, names);
    const now = performance.now();
    const failure = watch({ at: now, errors: health.applyErrors, idle: health.idle, confirmed });
    const suspected = wasIdle && health.idle && now - triedAt > LIMITS.tryFailingEveryMs;
    wasIdle = health.idle;
    if (failure === null && !suspected) return health;
    triedAt = now;
    const workers = await readWorkers(target, names);
    const disabled = workers.find(({ enabled }) => !enabled);
    if (disabled !== undefined)
      throw new MigrationError('ApplyFailed', `Subscription ${disabled.name} is disabled on the target.`, {
        object: disabled.name,
        next: `ALTER SUBSCRIPTION ${quoteIdent(disabled.name)} ENABLE; then resolve with retry.`,
      });
    for (const { name } of workers.filter(({ running }) => !running)) {
      const found = await readFailingChange(source, target, name);
      if (failure !== null || found?.reason != null) throw await applyFailed(m, source, target, names, failure, found);
    }
    if (failure !== null) throw await applyFailed(m, source, target, names, failure, null);
    return health;
  };
}

async function applyFailed(
  m: Migration,
  source: Session,
  target: Session,
  names: string[],
  failure: string | null,
  found: FailingChange | null,
): Promise<MigrationError> {
  await requireSubscribed(m, source, target, names);
  const [table = null, ...more] = found?.tables ?? [];
  const tables =
    more.length === 0 ? (table ?? '') : `one of ${[table, ...more].slice(0, LIMITS.namesInMessage).join(', ')}`;
  const what = `The target cannot apply a change${tables === '' ? '' : ` of ${tables}`} in database "${m.database}"`;
  const why =
    found?.reason ??
    `${failure ?? ''}, and nothing was confirmed meanwhile. The target's server log names the relation and the row`;
  const differences = await describeDifferences(m, source, target);
  return new MigrationError('ApplyFailed', [`${what}: ${why}.`, ...differences].join(' '), {
    object: more.length === 0 ? table : null,
  });
}
