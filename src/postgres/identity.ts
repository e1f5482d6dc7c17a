import type { ServerIdentity } from '../domain/migration.ts';
import type { Session } from './connection.ts';

/** Which server and database this is, whatever name led to it. */
export async function readIdentity(session: Session): Promise<ServerIdentity & { databaseOid: number }> {
  const row = await session.one<{ id: string; oid: string }>(
    `SELECT (SELECT system_identifier::text FROM pg_control_system()) AS id,
            (SELECT oid::text FROM pg_database WHERE datname = current_database()) AS oid`,
  );
  return { systemIdentifier: row.id, version: session.version, databaseOid: Number(row.oid) };
}
