import { NAME_PREFIX } from '../contract.ts';
import { quoteIdent } from './identifier.ts';
import type { Session } from './connection.ts';

/**
 * Who keeps a session of this migration waiting for a lock on the target, as a sentence with what to do; null: nobody has
 * for `longerThanMs`. Sessions of its own that wait for each other are at work. `waitstart` came with 14, as our targets.
 */
export async function readLockWait(target: Session, id: string, longerThanMs: number): Promise<string | null> {
  const [found] = await target.query<{ pid: number; program: string; name: string; state: string }>(
    `SELECT other.pid, other.application_name AS program, coalesce(other.usename, '')::text AS name,
            coalesce(other.state, 'state unknown') AS state
       FROM pg_locks wanted
       JOIN pg_stat_activity own ON own.pid = wanted.pid AND starts_with(own.application_name, $1)
      CROSS JOIN LATERAL unnest(pg_blocking_pids(wanted.pid)) AS blocking (pid)
       JOIN pg_stat_activity other ON other.pid = blocking.pid AND NOT starts_with(other.application_name, $1)
      WHERE NOT wanted.granted AND clock_timestamp() - wanted.waitstart > $2 * interval '1 millisecond'
      -- who has the lock, before those who only stand in the queue for it
      ORDER BY wanted.waitstart, other.wait_event_type IS NOT DISTINCT FROM 'Lock', other.pid LIMIT 1`,
    [`${NAME_PREFIX}${id}_`, longerThanMs],
  );
  if (found === undefined) return null;
  const { pid, program, name, state } = found;
  const who = [program === '' ? '' : quoteIdent(program), name === '' ? '' : `user ${name}`, state];
  return (
    `It waits for a lock that session ${pid} of the target is in the way of (${who.filter(Boolean).join(', ')}). ` +
    `Let it finish, or end it: SELECT pg_terminate_backend(${pid});`
  );
}
