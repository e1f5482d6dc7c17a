import { quoteIdent } from '../postgres/identifier.ts';
import type { DatabaseContext, Seen } from './check.ts';
import { readOwnRole } from './privileges.ts';

/** What the fence needs when the plan has one: found out now, and not when writers are to be locked out. */
export async function fenceRights({
  source,
  plan,
  database,
}: Pick<DatabaseContext, 'source' | 'plan' | 'database'>): Promise<Seen[]> {
  if (plan.stop.fence !== 'read-only') return [];
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

/** Who may end sessions may not end those of superusers. They come and go, so this is no more than a warning. */
export async function superuserSessions({ source, plan, database }: DatabaseContext): Promise<Seen[]> {
  if (plan.stop.fence !== 'read-only' || (await readOwnRole(source)).superuser) return [];
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
