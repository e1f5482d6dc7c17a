import { Context } from '@temporalio/activity';
import { NAME_PREFIX } from '../src/contract.ts';
import { MigrationError } from '../src/domain/failure.ts';
import type { PinnedServers } from '../src/domain/migration.ts';
import type { Plan } from '../src/domain/plan.ts';
import type { RoleReport } from '../src/domain/progress.ts';
import type { Session } from '../src/postgres/connection.ts';
import { connect } from '../src/postgres/connection.ts';
import { readMemberships, readParameterPrivileges, readRoles } from '../src/postgres/role.ts';
import { readAllRolesSettings } from '../src/postgres/role-all.ts';
import type { RoleSet } from '../src/postgres/role-restore.ts';
import { restoreRoles } from '../src/postgres/role-restore.ts';
import type { ActivityDeps } from './context.ts';
import { readIdentity } from '../src/postgres/identity.ts';
import { activitySignal, withSession } from './context.ts';

export interface RoleMigration {
  plan: Plan;
  servers: PinnedServers;
  /** Workflow id of the whole migration. */
  cluster: string;
}

export function createRoleActivities(deps: ActivityDeps) {
  return {
    /** Makes the roles that the target lacks. What fails is in the report; a failing role fails nothing else. */
    async migrateRoles(input: RoleMigration): Promise<RoleReport[]> {
      const found = await withSession(openServer(deps, input, 'source'), 'reading the roles', readRoleSet);
      const wanted = without(found, input.plan.roles.exclude);
      const restored = await withSession(openServer(deps, input, 'target'), 'making the roles', (target) =>
        restoreRoles(target, wanted, {
          passwords: input.plan.roles.passwords,
          again: Context.current().info.attempt > 1,
        }),
      );
      deps.onPlaceholders?.(restored.placeholders);
      return restored.reports;
    },
  };
}

async function openServer(
  deps: ActivityDeps,
  { plan, servers }: RoleMigration,
  server: 'source' | 'target',
): Promise<Session> {
  const pinned = servers[server];
  // From 16 on, the maker of a role that is no superuser may act for it only so: give it objects, grant in its name.
  const settings = server === 'target' && pinned.version >= 160000 ? { createrole_self_grant: 'set, inherit' } : {};
  const session = await connect(deps.endpoint(plan[server], server), {
    applicationName: `${NAME_PREFIX}control`,
    settings,
    signal: activitySignal(),
  });
  const { systemIdentifier } = await readIdentity(session).catch((error: unknown) => {
    session.destroy();
    throw error;
  });
  if (systemIdentifier === pinned.systemIdentifier) return session;
  await session.close();
  throw new MigrationError(
    'WrongServer',
    `The ${server} that this worker reaches is another server than the one that was validated ` +
      `(system identifier ${systemIdentifier} instead of ${pinned.systemIdentifier}).`,
  );
}

const readRoleSet = async (source: Session): Promise<RoleSet> => ({
  roles: await readRoles(source),
  memberships: await readMemberships(source),
  parameters: await readParameterPrivileges(source),
  allRoles: await readAllRolesSettings(source),
});

function without(set: RoleSet, excluded: readonly string[]): RoleSet {
  const kept = (role: string | null) => role === null || !excluded.includes(role);
  return {
    ...set,
    roles: set.roles.filter(({ name }) => kept(name)),
    memberships: set.memberships.filter(({ role, member }) => kept(role) && kept(member)),
    parameters: set.parameters.filter(({ grantee }) => kept(grantee)),
  };
}
