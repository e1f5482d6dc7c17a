import { setTimeout as delay } from 'node:timers/promises';
import type { Session } from './connection.ts';

/** How soon a terminated backend is gone is up to the server; this is how often it is looked for. */
const POLL_MS = 50;

/**
 * Terminates the sessions with exactly these names on the database, and waits until the server has none of them left.
 * Repeats the termination: a session that was just starting has no name at the first look.
 */
export async function endSessions(session: Session, database: string, names: readonly string[]): Promise<void> {
  await untilNone(() =>
    session.query(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
       WHERE application_name = ANY ($1) AND datname = $2 AND pid <> pg_backend_pid()`,
      [names, database],
    ),
  );
}

/** The same for one session, where others of its name may be somebody else's. */
export async function endSession(session: Session, pid: number, name: string): Promise<void> {
  await untilNone(() =>
    session.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND application_name = $2', [
      pid,
      name,
    ]),
  );
}

async function untilNone(terminate: () => Promise<unknown[]>): Promise<void> {
  while ((await terminate()).length > 0) await delay(POLL_MS);
}

/** Whether the backend with this pid is still the session of that name: pids are used again. */
export async function sessionIsThere(session: Session, pid: number, name: string): Promise<boolean> {
  const rows = await session.query('SELECT FROM pg_stat_activity WHERE pid = $1 AND application_name = $2', [
    pid,
    name,
  ]);
  return rows.length > 0;
}
