import { LEDGER_SCHEMA, NAME_PREFIX } from '../contract.ts';
import { dropExtras } from '../postgres/aiven-extras.ts';
import type { Endpoint, Session } from '../postgres/connection.ts';
import { connect } from '../postgres/connection.ts';
import { fenceName, liftFence, readFence } from '../postgres/fence.ts';
import { readIdentity } from '../postgres/identity.ts';
import { dropLedger } from '../postgres/ledger.ts';
import type { Leftover } from '../postgres/leftovers.ts';
import { dropLeftover, findLedgerOwner, findLeftovers, LEFTOVER_KINDS } from '../postgres/leftovers.ts';
import { messageOf } from '../temporal/connection.ts';

/** What a migration left. The ledger knows what the fence is to put back, so it goes last. */
export interface Found extends Omit<Leftover, 'kind' | 'id'> {
  kind: Leftover['kind'] | 'fence' | 'schema';
  /** null: a schema of our name that does not say whose it is. */
  id: string | null;
  server: Server;
  /** As the ledger says. */
  workflowId: string | null;
}

type Server = Endpoint['server'];
export type Endpoints = Readonly<Record<Server, Endpoint>>;

const ORDER: readonly Found['kind'][] = [...LEFTOVER_KINDS, 'fence', 'schema'];

/** Everything with our names on both servers, in the order in which it can be dropped. `unseen`: where nobody could look. */
export async function searchServers(endpoints: Endpoints): Promise<{ found: Found[]; unseen: string[] }> {
  const [source, target] = await Promise.all([search(endpoints.source), search(endpoints.target)]);
  const found = [...target.found, ...source.found];
  return {
    found: found.sort((a, b) => ORDER.indexOf(a.kind) - ORDER.indexOf(b.kind)),
    unseen: [...source.unseen, ...target.unseen],
  };
}

async function search(endpoint: Endpoint): Promise<{ found: Found[]; unseen: string[] }> {
  const { server } = endpoint;
  return inDatabase(endpoint, null, async (session) => {
    const databases = await session.query<{ name: string; may: boolean }>(
      `SELECT datname AS name, has_database_privilege(datname, 'CONNECT') AS may FROM pg_database
        WHERE datallowconn AND NOT datistemplate ORDER BY datname`,
    );
    // Publications and ledgers show up in their database only.
    const everywhere = (await findLeftovers(session)).filter(({ kind }) => kind !== 'publication');
    const found: Found[] = everywhere.map((leftover) => ({ ...leftover, server, workflowId: null }));
    const unseen: string[] = [];
    for (const { name, may } of databases)
      try {
        if (!may) throw new Error('the role may not connect to it.');
        found.push(...(await inDatabase(endpoint, name, (inside) => searchDatabase(inside, server, name))));
      } catch (error) {
        unseen.push(`database "${name}" on the ${server}: ${messageOf(error)}`);
      }
    return { found, unseen };
  });
}

async function searchDatabase(session: Session, server: Server, database: string): Promise<Found[]> {
  const found: Found[] = (await findLeftovers(session))
    .filter(({ kind }) => kind === 'publication')
    .map((leftover) => ({ ...leftover, server, workflowId: null }));
  const owner = await findLedgerOwner(session);
  if (owner === null) return found;
  const { id, workflowId } = owner === 'unreadable' ? { id: null, workflowId: null } : owner;
  const ledger = { id, workflowId, database, pid: null };
  const fence = id === null ? null : await readFence(session);
  if (fence !== null) found.push({ ...ledger, kind: 'fence', name: fenceName(fence), server: otherThan(server) });
  return [...found, { ...ledger, kind: 'schema', name: LEDGER_SCHEMA, server }];
}

const otherThan = (server: Server): Server => (server === 'source' ? 'target' : 'source');

/** Does nothing where it is gone by now. */
export async function drop(endpoints: Endpoints, found: Found): Promise<void> {
  const { kind, id, server, database } = found;
  const endpoint = endpoints[server];
  switch (kind) {
    case 'slot':
    case 'session':
      // Also in a database that lets nobody in.
      return inDatabase(endpoint, null, (session) => dropLeftover(session, { ...found, kind, id: id ?? '' }));
    case 'subscription':
    case 'publication':
      return inDatabase(endpoint, database, (session) => dropLeftover(session, { ...found, kind, id: id ?? '' }));
    case 'fence':
      return inDatabase(endpoints[otherThan(server)], database, (target) =>
        inDatabase(endpoint, database, (source) => lift(source, target, found)),
      );
    case 'schema':
      return inDatabase(endpoint, database, async (target) => {
        const owner = await findLedgerOwner(target);
        // A new migration may have begun here.
        if (owner === null || owner === 'unreadable' || owner.id !== id) return;
        await dropExtras(target);
        await dropLedger(target);
      });
  }
}

async function lift(source: Session, target: Session, { id }: Found): Promise<void> {
  const owner = await findLedgerOwner(target);
  if (owner === null || owner === 'unreadable' || owner.id !== id) return;
  const booked = await target.one<{ systemIdentifier: string; oid: number }>(
    `SELECT source_system_identifier AS "systemIdentifier", source_oid::float8 AS oid FROM ${LEDGER_SCHEMA}.migration`,
  );
  const { systemIdentifier, databaseOid } = await readIdentity(source);
  if (systemIdentifier !== booked.systemIdentifier || databaseOid !== booked.oid)
    throw new Error('This is another source than the one that was fenced; name that one.');
  await liftFence(source, target);
}

async function inDatabase<T>(
  endpoint: Endpoint,
  database: string | null,
  work: (session: Session) => Promise<T>,
): Promise<T> {
  const applicationName = `${NAME_PREFIX}cleanup`;
  const session = await connect(endpoint, { applicationName, ...(database !== null && { database }) });
  try {
    return await work(session);
  } finally {
    await session.close();
  }
}
