import { LEDGER_SCHEMA } from '../contract.ts';
import type { Session } from '../postgres/connection.ts';
import { quoteIdent, quoteLiteral } from '../postgres/identifier.ts';
import type { Leftover } from '../postgres/leftovers.ts';
import { findLedgerOwner, findLeftovers } from '../postgres/leftovers.ts';
import type { DatabaseContext, Seen } from './check.ts';
import { shellQuote } from './shell.ts';

/** Of other migrations, on this database. */
async function leftoversOf(session: Session, { database, own }: DatabaseContext): Promise<Leftover[]> {
  const found = await findLeftovers(session);
  return found.filter((leftover) => leftover.database === database && leftover.id !== own);
}

const UNLESS = '-- unless another migration of this database is running';

/** A slot that nobody reads fills the source's disk, so it is never stepped over. */
export async function sourceLeftovers(context: DatabaseContext): Promise<Seen[]> {
  const found = await leftoversOf(context.source, context);
  const of = (kind: Leftover['kind']) => found.filter((leftover) => leftover.kind === kind);
  return [
    // Holders first: a slot that a backend uses cannot be dropped.
    ...of('session')
      .filter(({ name }) => name.endsWith('_holder'))
      .map(({ name, pid }) => ({
        object: name,
        message: `Backend ${pid} holds the snapshot of an earlier or another migration of this database.`,
        remedy: `SELECT pg_terminate_backend(${pid}); ${UNLESS}`,
      })),
    ...of('slot').map(({ name }) => ({
      object: quoteIdent(name),
      message: 'A replication slot of an earlier or another migration of this database is there.',
      remedy: `SELECT pg_drop_replication_slot(${quoteLiteral(name)}); ${UNLESS}`,
    })),
    ...of('publication').map(({ name }) => ({
      object: quoteIdent(name),
      message: 'A publication of an earlier or another migration of this database is there.',
      remedy: `DROP PUBLICATION ${quoteIdent(name)}; ${UNLESS}`,
    })),
  ];
}

export async function targetLeftovers(context: DatabaseContext): Promise<Seen[]> {
  const { target, targetExists } = context;
  if (!targetExists) return [];
  const subscriptions = (await leftoversOf(target, context)).filter(({ kind }) => kind === 'subscription');
  const seen: Seen[] = subscriptions.map(({ name }) => ({
    object: quoteIdent(name),
    message: 'A subscription of an earlier or another migration of this database is there.',
    remedy: `ALTER SUBSCRIPTION ${quoteIdent(name)} DISABLE; ALTER SUBSCRIPTION ${quoteIdent(name)} SET (slot_name = NONE); DROP SUBSCRIPTION ${quoteIdent(name)}; ${UNLESS}`,
  }));
  return [...seen, ...(await ledgerOfAnother(context))];
}

async function ledgerOfAnother({ target, own, database }: DatabaseContext): Promise<Seen[]> {
  const owner = await findLedgerOwner(target);
  if (owner === null) return [];
  const drop = `DROP SCHEMA ${LEDGER_SCHEMA} CASCADE; in the database on the target, or DROP DATABASE ${quoteIdent(database)};`;
  if (owner === 'unreadable')
    return [
      {
        object: LEDGER_SCHEMA,
        message: `The schema "${LEDGER_SCHEMA}" is there on the target, and does not say whose it is.`,
        remedy: drop,
      },
    ];
  if (owner.id === own) return [];
  return [
    {
      object: LEDGER_SCHEMA,
      message: `The database on the target belongs to another migration, workflow "${owner.workflowId}".`,
      remedy: `temporal workflow cancel -w ${shellQuote(owner.workflowId)} while it runs; after it has ended, ${drop}`,
    },
  ];
}
