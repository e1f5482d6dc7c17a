import { LEDGER_SCHEMA } from '../src/contract.ts';
import type { SessionRole } from '../src/contract.ts';
import { LIMITS } from '../src/domain/limits.ts';
import type { Migration } from '../src/domain/migration.ts';
import { ring } from '../src/postgres/bell.ts';
import type { Session } from '../src/postgres/connection.ts';
import { ENTRY_SETTINGS } from '../src/postgres/entry.ts';
import type { ActivityDeps } from './context.ts';
import { openSource, openTarget, withSession } from './context.ts';

/** Settings that decide how values read as text, beside those that every session pins. */
const TEXT_SETTINGS = {
  // money is text with as many decimals as the locale has: the same on either side, so that no amount changes.
  lc_monetary: 'C',
  // reg* columns print names, quoted only where they must be.
  quote_all_identifiers: 'off',
} as const;

const SOURCE_SETTINGS = TEXT_SETTINGS;

const TARGET_SETTINGS = {
  ...ENTRY_SETTINGS,
  ...TEXT_SETTINGS,
  // off would read NULL in a text array as the word.
  array_nulls: 'on',
  // The ledger is in the same transaction: a crash of the target takes back both. At the end of a lane: `flushLane`.
  synchronous_commit: 'off',
  maintenance_work_mem: LIMITS.indexMemory,
  max_parallel_maintenance_workers: String(LIMITS.indexHelpers),
} as const;

export const openLaneSource = (deps: ActivityDeps, m: Migration, role: SessionRole): Promise<Session> =>
  openSource(deps, m, role, { settings: SOURCE_SETTINGS });

export const openLaneTarget = (deps: ActivityDeps, m: Migration, role: SessionRole): Promise<Session> =>
  openTarget(deps, m, role, { settings: TARGET_SETTINGS });

/** Opens both sessions of a lane, runs `work` on them, closes both. Errors of the source are its own business to name. */
export async function withBoth<T>(
  deps: ActivityDeps,
  m: Migration,
  role: SessionRole,
  doing: string,
  work: (source: Session, target: Session) => Promise<T>,
): Promise<T> {
  return withSession(openLaneTarget(deps, m, role), doing, (target) =>
    withSession(openLaneSource(deps, m, role), doing, (source) => work(source, target)),
  );
}

/** What identifies a lane in the ledger. */
export interface Lane {
  kind: string;
  lane: number;
}

/**
 * Ends what an earlier attempt of this lane left on the servers, such as the sessions of a worker that was stopped and
 * not killed: they would hold units, and go on copying when it wakes up. Pid and start together name one session for
 * ever. Then books our own sessions for the next attempt.
 */
export async function takeOverLane(target: Session, { kind, lane }: Lane, sessions: readonly Session[]): Promise<void> {
  const left = await target.query<{ server: string; pid: number; backend_start: string }>(
    `SELECT server, pid, backend_start FROM ${LEDGER_SCHEMA}.lane WHERE kind = $1 AND lane = $2`,
    [kind, lane],
  );
  for (const session of sessions) {
    const { server } = session.endpoint;
    const earlier = left.find((row) => row.server === server);
    if (earlier !== undefined)
      await session.query(
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
          WHERE pid = $1 AND backend_start::text = $2 AND pid <> pg_backend_pid()`,
        [earlier.pid, earlier.backend_start],
      );
    const { backend_start } = await session.one<{ backend_start: string }>(
      'SELECT backend_start::text FROM pg_stat_activity WHERE pid = pg_backend_pid()',
    );
    await target.query(
      `INSERT INTO ${LEDGER_SCHEMA}.lane (kind, lane, server, pid, backend_start) VALUES ($1, $2, $3, $4, $5)
       ON CONFLICT (kind, lane, server) DO UPDATE SET pid = excluded.pid, backend_start = excluded.backend_start`,
      [kind, lane, server, session.pid, backend_start],
    );
  }
}

/**
 * A lane commits asynchronously, and when it is over nobody does again what a crash of the target takes back. So it ends
 * with a commit that waits for the disk, and with it for all that it has seen committed. It must write something: others
 * wait for nothing. Lanes that wait for this one wake up.
 */
export async function flushLane(target: Session, { kind, lane }: Lane): Promise<void> {
  await target.transaction(async () => {
    await target.query('SET LOCAL synchronous_commit = on');
    await target.query(`UPDATE ${LEDGER_SCHEMA}.lane SET pid = pid WHERE kind = $1 AND lane = $2`, [kind, lane]);
    await ring(target);
  });
}
