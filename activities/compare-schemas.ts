import type { Migration } from '../src/domain/migration.ts';
import { requireOwnLedger } from '../src/postgres/ledger.ts';
import { compareSchemas } from '../src/postgres/schema-comparison.ts';
import type { ActivityDeps } from './context.ts';
import { activitySignal, heartbeating, withSessions } from './context.ts';

export function createSchemaComparisonActivities(deps: ActivityDeps) {
  return {
    /**
     * Before the fence: how the schemas differ, as sentences. Only looks.
     * @throws MigrationError `NotComplete`, naming what somebody has dropped on the target
     */
    async compareSchemas(m: Migration): Promise<{ differences: string[] }> {
      return withSessions(deps, m, 'probe', 'comparing the schemas', async (source, target) => {
        await requireOwnLedger(target, m);
        return heartbeating(
          () => null,
          async () => ({ differences: await compareSchemas(m, source, target, activitySignal()) }),
        );
      });
    },
  };
}
