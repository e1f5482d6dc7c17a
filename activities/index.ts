import { createCarryOverActivities } from './carry-over.ts';
import { createSchemaComparisonActivities } from './compare-schemas.ts';
import { createCopyActivities } from './copy.ts';
import type { ActivityDeps } from './context.ts';
import { heartbeating } from './context.ts';
import { createDatabaseActivities } from './database.ts';
import { createFenceActivities } from './fence.ts';
import { createFinishActivities } from './finish.ts';
import { createGenerationActivities } from './generations.ts';
import { createIndexActivities } from './indexes.ts';
import { createInspectActivities } from './inspect.ts';
import { createLargeObjectActivities } from './large-objects.ts';
import { createMeasureActivities } from './measure.ts';
import { createReadinessActivities } from './readiness.ts';
import { createRehearsalActivities } from './rehearsal.ts';
import { createReplicationActivities } from './replication.ts';
import { createReverseActivities } from './reverse.ts';
import { createRoleActivities } from './roles.ts';
import { createSchemaActivities } from './schema.ts';
import { createSequenceActivities } from './sequences.ts';
import { createSnapshotActivities } from './snapshot.ts';
import { createUndoActivities } from './undo.ts';
import { createFencedVerifyActivities } from './verify-fenced.ts';
import { createStreamingVerifyActivities } from './verify-streaming.ts';
import { createVerifyActivities } from './verify.ts';

/** Every step, by the name that histories know it by. */
export function createActivities(deps: ActivityDeps) {
  return heartbeatingAll({
    ...createInspectActivities(deps),
    ...createRoleActivities(deps),
    ...createDatabaseActivities(deps),
    ...createSnapshotActivities(deps),
    ...createGenerationActivities(deps),
    ...createSchemaActivities(deps),
    ...createCopyActivities(deps),
    ...createIndexActivities(deps),
    ...createLargeObjectActivities(deps),
    ...createSequenceActivities(deps),
    ...createCarryOverActivities(deps),
    ...createVerifyActivities(deps),
    ...createSchemaComparisonActivities(deps),
    ...createFencedVerifyActivities(deps),
    ...createStreamingVerifyActivities(deps),
    ...createReplicationActivities(deps),
    ...createFenceActivities(deps),
    ...createReverseActivities(deps),
    ...createMeasureActivities(deps),
    ...createReadinessActivities(deps),
    ...createRehearsalActivities(deps),
    ...createFinishActivities(deps),
    ...createUndoActivities(deps),
  });
}

export type Activities = ReturnType<typeof createActivities>;

/** Without heartbeats neither a cancellation nor a dead worker is noticed, so every step has them. */
function heartbeatingAll<T extends object>(activities: T): T {
  const wrapped = Object.entries(activities).map(([name, step]) => [
    name,
    (...args: unknown[]) =>
      heartbeating(
        () => null,
        () => (step as (...args: unknown[]) => Promise<unknown>)(...args),
      ),
  ]);
  return Object.fromEntries(wrapped) as T;
}
