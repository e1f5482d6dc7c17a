import type { Session } from './connection.ts';
import { quoteIdent } from './identifier.ts';

/** A grant of CONNECT on a database. */
export interface ConnectGrant {
  grantor: string;
  /** null: PUBLIC. */
  grantee: string | null;
  grantable: boolean;
  byOwner: boolean;
}

export interface LockOut {
  kind: 'lock-out';
  /** As they were, in the order in which they can be granted again. */
  grants: ConnectGrant[];
  /** Roles that may connect all the same: our own. */
  admitted: string[];
}

/** Who may connect to the session's database by a grant; where nobody ever changed anything, those are the default ones. */
export const readConnectGrants = (session: Session): Promise<ConnectGrant[]> =>
  session.query<ConnectGrant>(
    `SELECT pg_get_userbyid(grantor) AS grantor, CASE grantee WHEN 0 THEN NULL ELSE pg_get_userbyid(grantee) END AS grantee,
            is_grantable AS grantable, grantor = datdba AS "byOwner"
       FROM pg_database, aclexplode(coalesce(datacl, acldefault('d', datdba))) WITH ORDINALITY
            AS item (grantor, grantee, privilege, is_grantable, n)
      WHERE datname = current_database() AND privilege = 'CONNECT' ORDER BY n`,
  );

/** Other roles that may log in and have all rights of one of these, which no ACL can take from them. Superusers aside. */
export const membersOf = async (session: Session, roles: readonly string[]): Promise<{ name: string; of: string }[]> =>
  session.query<{ name: string; of: string }>(
    `SELECT DISTINCT ON (1) m.rolname AS name, r.rolname AS of FROM pg_roles m JOIN pg_roles r ON r.rolname = ANY ($1)
      WHERE m.rolcanlogin AND NOT m.rolsuper AND NOT m.rolname = ANY ($1) AND pg_has_role(m.oid, r.oid, 'USAGE')
      ORDER BY 1, 2`,
    [roles],
  );

/** Who must be let in all the same: our own role, and the one that the target's apply workers come as. */
export async function rolesToAdmit(session: Session, applyUser: string | null): Promise<string[]> {
  const rows = await session.query<{ name: string }>(
    'SELECT rolname AS name FROM pg_roles WHERE NOT rolsuper AND (rolname = current_user OR rolname = $1) ORDER BY 1',
    [applyUser],
  );
  return rows.map(({ name }) => name);
}

/**
 * Takes CONNECT from everybody, the owner too, and gives it to `admitted`: in one transaction, so that we are never locked
 * out ourselves, which ALLOW_CONNECTIONS false would do. What grantees had passed on goes with theirs.
 */
export async function lockOut(session: Session, admitted: readonly string[]): Promise<void> {
  const database = quoteIdent(await currentDatabase(session));
  await session.transaction(async () => {
    const held = (await readConnectGrants(session)).filter(({ byOwner }) => byOwner);
    for (const { grantee } of held)
      await session.query(`REVOKE CONNECT ON DATABASE ${database} FROM ${roleOf(grantee)} CASCADE`);
    for (const role of admitted) await session.query(`GRANT CONNECT ON DATABASE ${database} TO ${quoteIdent(role)}`);
  });
}

/**
 * Every grant as it was. Where nobody had ever changed the defaults they are now written out, which says the same. Others
 * that somebody made meanwhile stay.
 */
export async function admitAgain(session: Session, { grants, admitted }: LockOut): Promise<void> {
  const database = quoteIdent(await currentDatabase(session));
  const had = new Set(grants.filter(({ byOwner }) => byOwner).map(({ grantee }) => grantee));
  await session.transaction(async () => {
    for (const role of admitted.filter((name) => !had.has(name)))
      await session.query(`REVOKE CONNECT ON DATABASE ${database} FROM ${quoteIdent(role)}`);
    for (const { grantor, grantee, grantable, byOwner } of grants) {
      const option = grantable ? ' WITH GRANT OPTION' : '';
      // Only who gave it can take it away again.
      if (!byOwner) await session.query(`SET LOCAL ROLE ${quoteIdent(grantor)}`);
      await session.query(`GRANT CONNECT ON DATABASE ${database} TO ${roleOf(grantee)}${option}`);
      if (!byOwner) await session.query('RESET ROLE');
    }
  });
}

/** The statements with which a person lets in again whom a fence that has stayed keeps out. */
export const grantsAsSql = (database: string, { grants }: LockOut): string =>
  grants
    .map(
      ({ grantee, grantable }) =>
        `GRANT CONNECT ON DATABASE ${quoteIdent(database)} TO ${roleOf(grantee)}${grantable ? ' WITH GRANT OPTION' : ''};`,
    )
    .join(' ');

const roleOf = (grantee: string | null): string => (grantee === null ? 'PUBLIC' : quoteIdent(grantee));

const currentDatabase = async (session: Session): Promise<string> =>
  (await session.one<{ database: string }>('SELECT current_database() AS database')).database;
