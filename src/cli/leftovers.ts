import { LEDGER_SCHEMA } from '../contract.ts';
import type { Session } from '../postgres/connection.ts';
import { displayName, quoteIdent } from '../postgres/identifier.ts';
import { ledgerExists } from '../postgres/ledger.ts';

/** Something of a migration on a server. */
export interface Leftover {
  /** 12 hex digits. */
  id: string;
  server: 'source' | 'target';
  database: string;
  /** What it is, and its name. */
  what: string;
}

interface Row {
  id: string;
  database: string;
  kind: string;
  name: string;
}

const ID = `substr(name, 11, 12)`;
const OURS = `name ~ '^pgtransit_[0-9a-f]{12}_'`;

/** What the catalogs of a whole server show, from any database. */
const SHARED = `
SELECT ${ID} AS id, database, kind, name FROM (
  SELECT 'replication slot' AS kind, slot_name::text AS name, database::text FROM pg_replication_slots
  UNION ALL SELECT 'session', application_name, datname FROM pg_stat_activity WHERE application_name !~ '_control$'
  UNION ALL SELECT 'subscription', s.subname, d.datname FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
) t WHERE ${OURS} ORDER BY 1, 2, 3`;

const PUBLICATIONS = `
SELECT ${ID} AS id, current_database()::text AS database, kind, name FROM (
  SELECT 'publication' AS kind, pubname::text AS name FROM pg_publication) t WHERE ${OURS}`;

export const sharedLeftovers = async (server: Session): Promise<Leftover[]> =>
  (await server.query<Row>(SHARED)).map((row) => leftover(server, row));

/** What only a session in the database sees: publications, and the ledger. */
export async function leftoversInDatabase(session: Session): Promise<Leftover[]> {
  const found = (await session.query<Row>(PUBLICATIONS)).map((row) => leftover(session, row));
  if (!(await ledgerExists(session))) return found;
  const ledgers = await session.query<{ id: string; workflow: string; database: string }>(
    `SELECT id, workflow_id AS workflow, current_database()::text AS database FROM ${LEDGER_SCHEMA}.migration`,
  );
  const { server } = session.endpoint;
  return [
    ...found,
    ...ledgers.map(({ id, workflow, database }) => ({
      ...{ id, server, database },
      what: `schema ${displayName(LEDGER_SCHEMA, 'migration')} of workflow ${workflow}`,
    })),
  ];
}

const leftover = ({ endpoint }: Session, { id, database, kind, name }: Row): Leftover => ({
  ...{ id, server: endpoint.server, database },
  what: `${kind} ${quoteIdent(name)}`,
});
