import { MigrationError } from '../domain/failure.ts';
import type { Fence } from '../domain/plan.ts';
import { quoteIdent } from '../postgres/identifier.ts';
import { membersOf, rolesToAdmit } from '../postgres/lock-out.ts';
import { openConsole, pooledNames } from '../postgres/pgbouncer.ts';
import type { DatabaseContext, Seen } from './check.ts';
import { readOwnRole } from './privileges.ts';

/** Those that end sessions. */
const ON_SERVER: readonly Fence[] = ['read-only', 'lock-out'];

type FenceContext = Pick<DatabaseContext, 'source' | 'plan' | 'database' | 'sourceForTarget' | 'pgbouncer'>;

/** What the fence needs when the plan has one: found out now, and not when writers are to be locked out. */
export async function fenceRights(context: FenceContext): Promise<Seen[]> {
  switch (context.plan.stop.fence) {
    case 'none':
    case 'external':
      return [];
    case 'read-only':
      return rightsOnServer(context);
    case 'lock-out':
      return [...(await rightsOnServer(context)), ...(await lockOutGaps(context))];
    case 'pgbouncer':
      return pooledDatabases(context);
  }
}

async function rightsOnServer({ source, database }: FenceContext): Promise<Seen[]> {
  const own = await readOwnRole(source);
  if (own.superuser) return [];
  const me = quoteIdent(own.name);
  const has = await source.one<{ owner: string; superuser: boolean; owns: boolean; sees: boolean; ends: boolean }>(
    `SELECT rolname AS owner, rolsuper AS superuser, pg_has_role(datdba, 'USAGE') AS owns,
            pg_has_role('pg_read_all_stats', 'USAGE') AS sees, pg_has_role('pg_signal_backend', 'USAGE') AS ends
       FROM pg_database JOIN pg_roles r ON r.oid = datdba WHERE datname = current_database()`,
  );
  const seen: Seen[] = [];
  const object = quoteIdent(database);
  if (!has.owns)
    seen.push({
      object,
      message: `The plan fences the source, and only the owner of the database, ${quoteIdent(has.owner)}, may make it read-only.`,
      // Membership in a superuser is more than anybody should get for this.
      remedy: has.superuser ? `ALTER DATABASE ${object} OWNER TO ${me};` : `GRANT ${quoteIdent(has.owner)} TO ${me};`,
    });
  const lacking = [...(has.sees ? [] : ['pg_read_all_stats']), ...(has.ends ? [] : ['pg_signal_backend'])];
  if (lacking.length > 0)
    seen.push({
      object,
      message: `The plan fences the source, and ${me} may not ${has.ends ? 'see when the sessions of others began' : 'end the sessions of others'}.`,
      remedy: `GRANT ${lacking.join(', ')} TO ${me};`,
    });
  return seen;
}

/** Whom a lock-out would let in with us, and grants that nobody could put back. */
async function lockOutGaps({ source, database, sourceForTarget }: FenceContext): Promise<Seen[]> {
  const object = quoteIdent(database);
  const admitted = await rolesToAdmit(source, sourceForTarget['user'] ?? null);
  const seen: Seen[] = (await membersOf(source, admitted)).map(({ name, of }) => ({
    object,
    message: `The lock-out cannot keep out ${quoteIdent(name)}, which has all rights of ${quoteIdent(of)}, as which the migration connects.`,
    remedy: `REVOKE ${quoteIdent(of)} FROM ${quoteIdent(name)};`,
  }));
  const own = await readOwnRole(source);
  if (own.superuser) return seen;
  const grantors = await source.query<{ name: string }>(
    `SELECT DISTINCT pg_get_userbyid(a.grantor) AS name FROM pg_database d, aclexplode(d.datacl) a
      WHERE d.datname = current_database() AND a.privilege_type = 'CONNECT' AND a.grantor <> d.datdba
        AND NOT pg_has_role(a.grantor, 'MEMBER') ORDER BY 1`,
  );
  return [
    ...seen,
    ...grantors.map(({ name }) => ({
      object,
      message: `The lock-out could not put back what ${quoteIdent(name)} has granted on the database, since only ${quoteIdent(name)} can.`,
      remedy: `GRANT ${quoteIdent(name)} TO ${quoteIdent(own.name)};`,
    })),
  ];
}

async function pooledDatabases({ source, database, pgbouncer }: FenceContext): Promise<Seen[]> {
  if (pgbouncer === null) return [];
  try {
    const console = await openConsole(pgbouncer, 'pgtransit_console', new AbortController().signal);
    try {
      await pooledNames(console, database, source.endpoint);
      return [];
    } finally {
      await console.close();
    }
  } catch (error) {
    if (!(error instanceof MigrationError)) throw error;
    return [{ object: quoteIdent(database), message: error.message, remedy: error.details.next }];
  }
}

/** Who may end sessions may not end those of superusers. They come and go, so this is no more than a warning. */
export async function superuserSessions({ source, plan, database }: DatabaseContext): Promise<Seen[]> {
  if (!ON_SERVER.includes(plan.stop.fence) || (await readOwnRole(source)).superuser) return [];
  const rows = await source.query<{ name: string; sessions: number }>(
    `SELECT usename AS name, count(*)::float8 AS sessions FROM pg_stat_activity JOIN pg_roles ON rolname = usename
      WHERE datname = current_database() AND rolsuper AND backend_type = 'client backend' GROUP BY 1 ORDER BY 1`,
  );
  return rows.map(({ name, sessions }) => ({
    object: quoteIdent(database),
    message: `The fence cannot end sessions of the superuser ${quoteIdent(name)}, who has ${sessions} now: what they write after it stays on the source.`,
    remedy: 'Let a superuser end them before the cutover, or make sure that they only read.',
  }));
}
