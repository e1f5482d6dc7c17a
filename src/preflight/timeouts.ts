import type { Session } from '../postgres/connection.ts';
import { quoteIdent } from '../postgres/identifier.ts';
import type { DatabaseContext, Seen } from './check.ts';

/** Each session of ours sets these for itself (session-settings.ts). */
const OVERRIDDEN = [
  'statement_timeout',
  'lock_timeout',
  'idle_in_transaction_session_timeout',
  'idle_session_timeout',
  'transaction_timeout',
];

export const sourceTimeouts = (context: DatabaseContext): Promise<Seen[]> =>
  timeouts(context.source, context, {
    transaction_timeout:
      'ends the sender of the changes within a transaction that takes longer to send, again and again',
  });

export const targetTimeouts = (context: DatabaseContext): Promise<Seen[]> =>
  timeouts(context.target, context, {
    transaction_timeout:
      'ends the apply worker within a transaction that takes longer to apply, again and again, so it never arrives',
    lock_timeout: 'also holds for the apply worker, which begins anew when somebody locks a table for longer',
  });

/** What it does to the server's own processes, whose sessions are not ours to set. */
type Consequences = Readonly<Record<string, string>>;

async function timeouts(session: Session, { method }: DatabaseContext, consequences: Consequences): Promise<Seen[]> {
  const rows = await session.query<{ name: string; value: string; role: string; database: string }>(
    // reset_val is what the session began with: of the file, the database, the role, whichever wins.
    `SELECT name, reset_val || coalesce(unit, '') AS value, current_user AS role, current_database() AS database
       FROM pg_settings WHERE name = ANY ($1) AND reset_val <> '0' ORDER BY name`,
    [OVERRIDDEN],
  );
  const seen: Seen[] = [];
  for (const { name, value, role, database } of rows) {
    const consequence = consequences[name];
    if (method !== 'replication' || consequence === undefined) continue;
    seen.push({
      object: name,
      message: `"${name}" is ${value} for ${quoteIdent(role)}; it ${consequence}.`,
      remedy: `ALTER ROLE ${quoteIdent(role)} IN DATABASE ${quoteIdent(database)} SET ${name} = 0;`,
      severity: name === 'transaction_timeout' ? 'error' : 'warning',
    });
  }
  if (rows.length > 0)
    seen.push({
      message: `The server gives sessions ${rows.map(({ name, value }) => `"${name}" of ${value}`).join(', ')}; every session of the migration sets its own.`,
    });
  return seen;
}
