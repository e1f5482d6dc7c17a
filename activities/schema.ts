import { Context } from '@temporalio/activity';
import { generationName, LEDGER_SCHEMA } from '../src/contract.ts';
import { MigrationError } from '../src/domain/failure.ts';
import { LIMITS } from '../src/domain/limits.ts';
import type { Migration } from '../src/domain/migration.ts';
import type { Session } from '../src/postgres/connection.ts';
import type { EntryRow, EntryRun } from '../src/postgres/entry.ts';
import { countEntries, ENTRY_SETTINGS, lockSchemaWork, runEntries } from '../src/postgres/entry.ts';
import { underSnapshot } from '../src/postgres/import-snapshot.ts';
import { requireOwnLedger } from '../src/postgres/ledger.ts';
import { displayView, readPopulated, readInOrder, refresh } from '../src/postgres/matview.ts';
import { archiveSchema, nameSome } from '../src/postgres/schema-archive.ts';
import { readRelations } from '../src/postgres/schema-catalog.ts';
import { toMigrationError } from '../src/postgres/sqlstate.ts';
import { FOREIGN_KEY, FOREIGN_KEY_VALIDATION, notValid } from '../src/postgres/stage.ts';
import type { ActivityDeps } from './context.ts';
import { activitySignal, heartbeating, nextPoll, openBeside, openSource, openTarget, withSession } from './context.ts';
import { requireSlots } from './replication-guards.ts';

export function createSchemaActivities(deps: ActivityDeps) {
  const options = { settings: ENTRY_SETTINGS };

  /** Only one at a time works on a database's schema. */
  const withSchemaSession = <T>(m: Migration, doing: string, work: (target: Session) => Promise<T>): Promise<T> =>
    withSession(openTarget(deps, m, 'control', options), doing, async (target) => {
      await requireOwnLedger(target, m);
      await lockSchemaWork(target);
      return work(target);
    });

  const runOnSeveral = async (m: Migration, target: Session, run: EntryRun): Promise<void> => {
    const lanes = Math.min(m.plan.parallelism.copy, LIMITS.schemaSessions);
    const others = await openBeside(deps, m, target, lanes - 1, options);
    try {
      await runEntries([target, ...others], run);
    } finally {
      await Promise.all(others.map((session) => session.close()));
    }
  };

  return {
    /**
     * Takes the schema of the source as the generation's snapshot sees it, keeps it in the ledger entry by entry, and
     * runs what must be there before the rows. An attempt that died goes on where it was.
     * @throws MigrationError `SchemaFailed` naming the object, `SnapshotLost`, `ProgramMissing`
     */
    async copySchema(m: Migration, generation: number): Promise<{ entries: number }> {
      return withSchemaSession(m, 'restoring the schema', async (target) => {
        let current = 'taking the schema of the source';
        return heartbeating(
          () => ({ current }),
          async () => {
            if ((await countEntries(target)) === 0) await archive(deps, m, generation, target);
            await runOnSeveral(m, target, {
              stages: ['pre'],
              step: 'copySchema',
              otherwise: 'SchemaFailed',
              onProgress: (label) => (current = label),
              onDone: saying(deps, 'restored'),
            });
            await requireAllArrived(target);
            await target.query(
              `UPDATE ${LEDGER_SCHEMA}.migration SET schema_restored = coalesce(schema_restored, clock_timestamp())`,
            );
            return { entries: await countEntries(target) };
          },
        );
      });
    },

    /**
     * Everything that waits for the rows of all tables: foreign keys, triggers, rules, policies, grants; and the
     * indexes and keys of tables that no lane had to do with, because nothing was copied into them. Where tables were
     * copied under several snapshots their rows do not fit each other yet, so foreign keys wait for the streams.
     * @throws MigrationError `ConstraintFailed` naming the object
     */
    async restoreConstraints(m: Migration): Promise<void> {
      await withSchemaSession(m, 'restoring constraints', async (target) => {
        let current = '';
        await heartbeating(
          () => ({ current }),
          async () =>
            runOnSeveral(m, target, {
              stages: ['index', 'key', 'post'],
              wanted: (await countStreams(target)) > 1 ? 'all but foreign keys' : 'all',
              step: 'restoreConstraints',
              otherwise: 'ConstraintFailed',
              alone: (entries) => bigForeignKeys(target, entries),
              instead: leftNotValid,
              onProgress: (label) => (current = label),
              onDone: saying(deps, 'restored'),
            }),
        );
      });
    },

    /**
     * The foreign keys that waited, once every stream is past the last snapshot. Streams are never at one and the same
     * position, so a key may find a row without the one that it refers to for a moment: then it is tried again.
     */
    async restoreForeignKeys(m: Migration): Promise<void> {
      await withSchemaSession(m, 'restoring foreign keys', async (target) => {
        let current = 'waiting until every stream is past the last snapshot';
        await heartbeating(
          () => ({ current }),
          async () => {
            await withSession(openSource(deps, m, 'control'), 'waiting for the streams', (source) =>
              pastLastSnapshot(source, target, m),
            );
            const run: EntryRun = {
              stages: ['post'],
              wanted: 'foreign keys',
              step: 'restoreForeignKeys',
              otherwise: 'ConstraintFailed',
              // Each waits for the apply workers on its two tables only.
              alone: (entries) => Promise.resolve(new Set(entries.map(({ position }) => position))),
              onProgress: (label) => (current = label),
              onDone: saying(deps, 'restored'),
            };
            const patientUntil = Date.now() + LIMITS.foreignKeyPatienceMs;
            for (let postponed = true; postponed && Date.now() < patientUntil;) {
              postponed = false;
              const postpone: EntryRun['postpone'] = (_, sqlstate) => {
                const waits = sqlstate === FOREIGN_KEY_VIOLATION;
                postponed ||= waits;
                return waits;
              };
              await runEntries([target], { ...run, postpone });
              if (postponed) await nextPoll();
            }
            await runEntries([target], { ...run, instead: leftNotValid });
          },
        );
      });
    },

    /**
     * The materialized views that are filled on the source, each in its own transaction, after those it reads. `which`:
     * after the copy those that are `empty` on the target; before a cutover those that are `filled`, because their tables
     * have changed since, and no replication carries a REFRESH. One that fails does not keep the others back.
     * @throws MigrationError `ConstraintFailed` naming those that cannot be refreshed
     */
    async refreshMaterializedViews(m: Migration, which: 'empty' | 'filled'): Promise<{ refreshed: number }> {
      const populated = await withSession(
        openSource(deps, m, 'control'),
        'reading the materialized views',
        readPopulated,
      );
      const wanted = new Set(populated.map(displayView));
      return withSession(openTarget(deps, m, 'control'), 'refreshing the materialized views', async (target) => {
        await requireOwnLedger(target, m);
        const there = await readInOrder(target, which === 'filled');
        const views = there.filter((view) => wanted.has(displayView(view)));
        const failures: MigrationError[] = [];
        for (const view of views) {
          const object = displayView(view);
          try {
            await heartbeating(
              () => ({ current: object }),
              () => refresh(target, view),
            );
          } catch (error) {
            activitySignal().throwIfAborted();
            const doing = `refreshing materialized view ${object}`;
            const failure = toMigrationError(error, { server: 'target', doing, object, otherwise: 'ConstraintFailed' });
            if (failure.retryable) throw failure;
            failures.push(failure);
          }
        }
        if (failures.length > 0) throw cannotRefresh(failures);
        return { refreshed: views.length };
      });
    },
  };
}

/** For `verbose`: a line of the log for each thing that is told; without it, nobody is told. */
function saying(deps: ActivityDeps, what: string): ((text: string) => void) | undefined {
  if (deps.verbose !== true) return undefined;
  const { log } = Context.current();
  return (text) => void log.info(`${what}: ${text.replace(/^pg_dump: /, '')}`);
}

function cannotRefresh(failures: readonly MigrationError[]): MigrationError {
  const { object, sqlstate } = failures[0]?.details ?? {};
  return new MigrationError('ConstraintFailed', nameSome(failures.map(({ message }) => message)), {
    object: object ?? null,
    sqlstate: sqlstate ?? null,
    next: 'Mend it on the target and resolve with retry, or resolve with skip: then it stays unpopulated.',
  });
}

async function archive(deps: ActivityDeps, m: Migration, generation: number, target: Session): Promise<void> {
  await withSession(openSource(deps, m, 'control'), 'taking the schema', async (source) => {
    const write = (snapshot: string) =>
      target.transaction(() =>
        archiveSchema({ m, source, target, snapshot, signal: activitySignal(), onLine: saying(deps, 'pg_dump') }),
      );
    if (m.method !== 'schema-only') {
      const snapshot = await readSnapshot(m, generation, target);
      await underSnapshot(source, snapshot, () => write(snapshot));
      return;
    }
    // Where no rows are copied there is no generation, and this transaction's own snapshot is as good.
    await source.transaction(async () => {
      const { snapshot } = await source.one<{ snapshot: string }>('SELECT pg_export_snapshot() AS snapshot');
      await write(snapshot);
    }, 'BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ');
  });
}

async function readSnapshot(m: Migration, generation: number, target: Session): Promise<string> {
  const [row] = await target.query<{ snapshot: string }>(
    `SELECT snapshot FROM ${LEDGER_SCHEMA}.generation WHERE number = $1`,
    [generation],
  );
  if (row !== undefined) return row.snapshot;
  const message = `The ledger of database "${m.database}" on the target has no generation ${generation}.`;
  throw new MigrationError('SnapshotLost', message);
}

const countStreams = async (target: Session): Promise<number> =>
  (await target.one<{ count: number }>(`SELECT count(*)::float8 AS count FROM ${LEDGER_SCHEMA}.generation WHERE slot`))
    .count;

/** Only then all tables have been at the same moment of the source. */
async function pastLastSnapshot(source: Session, target: Session, m: Migration): Promise<void> {
  const generations = await target.query<{ number: number; lsn: string }>(
    `SELECT number, consistent_point::text AS lsn FROM ${LEDGER_SCHEMA}.generation WHERE slot ORDER BY number`,
  );
  const names = generations.map(({ number }) => generationName(m.id, number));
  const last = generations.at(-1)?.lsn ?? '0/0';
  while ((await requireSlots(source, names, last)) > 0) await nextPoll();
}

const RELATION_KINDS = ['TABLE', 'VIEW', 'MATERIALIZED VIEW', 'SEQUENCE', 'FOREIGN TABLE'];

/** Every statement succeeded; this asks whether what they should have made is there. */
async function requireAllArrived(target: Session): Promise<void> {
  // pg_restore's titles, which labels are made of, have a blank for a line break.
  const there = new Set((await readRelations(target)).map(({ label }) => label.replaceAll(/[\r\n]/g, ' ')));
  const rows = await target.query<{ relation: string }>(
    `SELECT substr(label, length(kind) + 2) AS relation FROM ${LEDGER_SCHEMA}.entry
      WHERE stage = 'pre' AND state = 'done' AND kind = ANY ($1)`,
    [RELATION_KINDS],
  );
  const missing = rows.map(({ relation }) => relation).filter((relation) => !there.has(relation));
  if (missing.length === 0) return;
  throw new MigrationError(
    'SchemaFailed',
    `After the schema was restored, ${nameSome(missing)} is not there on the target.`,
    {
      object: missing[0] ?? null,
    },
  );
}

/**
 * Those that look at the rows of a large table while they are added, because they could not be split. A partitioned
 * table has no size of its own, so it counts as big.
 */
async function bigForeignKeys(target: Session, entries: readonly EntryRow[]): Promise<Set<number>> {
  const foreignKeys = entries
    .filter(({ kind, sql }) => kind === FOREIGN_KEY && !sql.endsWith(' NOT VALID;\n'))
    .map(({ position, sql }) => ({ position, table: /^ALTER TABLE (?:ONLY )?([^\n]+)\n/.exec(sql)?.[1] ?? '' }));
  if (foreignKeys.length === 0) return new Set();
  const rows = await target.query<{ position: number }>(
    // As ANALYZE has left it after the copy: to ask the file system took 0.08 s for each 1,000.
    `SELECT f.position FROM unnest($1::int[], $2::text[]) AS f (position, name) JOIN pg_class c ON c.oid = to_regclass(f.name)
      WHERE c.relkind = 'p' OR c.relpages * current_setting('block_size')::float8 > $3`,
    [foreignKeys.map(({ position }) => position), foreignKeys.map(({ table }) => table), LIMITS.tinyTableBytes],
  );
  return new Set(rows.map(({ position }) => position));
}

const FOREIGN_KEY_VIOLATION = '23503';

/** The rows broke it on the source already, where its triggers were off: it is brought over as far as rows allow. */
function leftNotValid(
  { kind, label, sql }: EntryRow,
  sqlstate: string | null,
): ReturnType<NonNullable<EntryRun['instead']>> {
  if (sqlstate !== FOREIGN_KEY_VIOLATION || (kind !== FOREIGN_KEY && kind !== FOREIGN_KEY_VALIDATION)) return null;
  return {
    sql: kind === FOREIGN_KEY ? notValid(sql) : null,
    warning: `${label} is NOT VALID on the target: rows break it, on the source too. Mend them, then VALIDATE CONSTRAINT.`,
  };
}
