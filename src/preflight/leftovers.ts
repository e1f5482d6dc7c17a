import { LEDGER_SCHEMA } from '../contract.ts';
import { quoteIdent, quoteLiteral } from '../postgres/identifier.ts';
import { ledgerExists } from '../postgres/ledger.ts';
import { sqlstateOf } from '../postgres/sqlstate.ts';
import type { DatabaseContext, Seen } from './check.ts';
import { shellQuote } from './shell.ts';

/** Names that a migration gives on servers; its id comes second. */
const GENERATION = String.raw`^pgtransit_[0-9a-f]{12}_g[0-9]+$`;
const HOLDER = String.raw`^pgtransit_[0-9a-f]{12}_holder$`;

const isOwn = (name: string, own: string | null): boolean => own !== null && name.startsWith(`pgtransit_${own}_`);

const UNLESS = '-- unless another migration of this database is running';

/** A slot that nobody reads fills the source's disk, so it is never stepped over. */
export async function sourceLeftovers({ source, own }: DatabaseContext): Promise<Seen[]> {
  const slots = await source.query<{ name: string }>(
    `SELECT slot_name AS name FROM pg_replication_slots WHERE database = current_database() AND slot_name ~ $1 ORDER BY 1`,
    [GENERATION],
  );
  const publications = await source.query<{ name: string }>(
    'SELECT pubname AS name FROM pg_publication WHERE pubname ~ $1 ORDER BY 1',
    [GENERATION],
  );
  const holders = await source.query<{ name: string; pid: number }>(
    `SELECT application_name AS name, pid FROM pg_stat_activity
      WHERE datname = current_database() AND application_name ~ $1 ORDER BY pid`,
    [HOLDER],
  );
  return [
    // Holders first: a slot that a backend uses cannot be dropped.
    ...holders.map(({ name, pid }) => ({
      name,
      object: name,
      message: `Backend ${pid} holds the snapshot of an earlier or another migration of this database.`,
      remedy: `SELECT pg_terminate_backend(${pid}); ${UNLESS}`,
    })),
    ...slots.map(({ name }) => ({
      name,
      object: quoteIdent(name),
      message: 'A replication slot of an earlier or another migration of this database is there.',
      remedy: `SELECT pg_drop_replication_slot(${quoteLiteral(name)}); ${UNLESS}`,
    })),
    ...publications.map(({ name }) => ({
      name,
      object: quoteIdent(name),
      message: 'A publication of an earlier or another migration of this database is there.',
      remedy: `DROP PUBLICATION ${quoteIdent(name)}; ${UNLESS}`,
    })),
  ]
    .filter(({ name }) => !isOwn(name, own))
    .map(({ object, message, remedy }) => ({ object, message, remedy }));
}

export async function targetLeftovers(context: DatabaseContext): Promise<Seen[]> {
  const { target, targetExists, own } = context;
  if (!targetExists) return [];
  const subscriptions = await target.query<{ name: string }>(
    `SELECT subname AS name FROM pg_subscription
      WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND subname ~ $1 ORDER BY 1`,
    [GENERATION],
  );
  const seen: Seen[] = subscriptions
    .filter(({ name }) => !isOwn(name, own))
    .map(({ name }) => ({
      object: quoteIdent(name),
      message: 'A subscription of an earlier or another migration of this database is there.',
      remedy: `ALTER SUBSCRIPTION ${quoteIdent(name)} DISABLE; ALTER SUBSCRIPTION ${quoteIdent(name)} SET (slot_name = NONE); DROP SUBSCRIPTION ${quoteIdent(name)}; ${UNLESS}`,
    }));
  return [...seen, ...(await ledgerOfAnother(context))];
}

async function ledgerOfAnother({ target, own, database }: DatabaseContext): Promise<Seen[]> {
  if (!(await ledgerExists(target))) return [];
  const owner = await ledgerOwner(target);
  if (owner !== null && owner.id === own) return [];
  const drop = `DROP SCHEMA ${LEDGER_SCHEMA} CASCADE; in the database on the target, or DROP DATABASE ${quoteIdent(database)};`;
  if (owner === null)
    return [
      {
        object: LEDGER_SCHEMA,
        message: `The schema "${LEDGER_SCHEMA}" is there on the target, and does not say whose it is.`,
        remedy: drop,
      },
    ];
  return [
    {
      object: LEDGER_SCHEMA,
      message: `The database on the target belongs to another migration, workflow "${owner.workflowId}".`,
      remedy: `temporal workflow cancel -w ${shellQuote(owner.workflowId)} while it runs; after it has ended, ${drop}`,
    },
  ];
}

async function ledgerOwner(target: DatabaseContext['target']): Promise<{ id: string; workflowId: string } | null> {
  try {
    const sql = `SELECT id, workflow_id AS "workflowId" FROM ${LEDGER_SCHEMA}.migration LIMIT 1`;
    return (await target.query<{ id: string; workflowId: string }>(sql))[0] ?? null;
  } catch (error) {
    // It was made by somebody else, or by another role.
    if (['42P01', '42703', '42501'].includes(sqlstateOf(error) ?? '')) return null;
    throw error;
  }
}
