import { LEDGER_SCHEMA } from '../src/contract.ts';
import { MigrationError } from '../src/domain/failure.ts';
import { LIMITS } from '../src/domain/limits.ts';
import type { Migration } from '../src/domain/migration.ts';
import type { Plan } from '../src/domain/plan.ts';
import type { Session } from '../src/postgres/connection.ts';
import { holdOpenGeneration } from '../src/postgres/generation.ts';
import { underSnapshot } from '../src/postgres/import-snapshot.ts';
import {
  attributesOf,
  copyContents,
  hashContents,
  listLargeObjects,
  readLargeObjects,
  readLengths,
} from '../src/postgres/large-object.ts';
import { recordEvent, recordWarning } from '../src/postgres/ledger.ts';
import type { ActivityDeps } from './context.ts';
import { heartbeating, withSession } from './context.ts';
import { flushLane, openLaneSource, openLaneTarget, takeOverLane } from './lane-sessions.ts';

const STEP = 'copyLargeObjects';

export interface LargeObjectProgress {
  objects: number;
  total: number;
  bytes: number;
}

export function createLargeObjectActivities(deps: ActivityDeps) {
  return {
    /**
     * Copies large objects with owners, privileges and comments. A batch is one transaction that makes its objects, so
     * an object that is on the target is complete, and a retry goes on with those that are not there.
     */
    async copyLargeObjects(m: Migration, generation: number): Promise<{ objects: number; bytes: number }> {
      const progress: LargeObjectProgress = { objects: 0, total: 0, bytes: 0 };
      await heartbeating(
        () => ({ ...progress }),
        () =>
          withSession(openLaneTarget(deps, m, 'copy'), 'copying large objects', (target) =>
            withSession(openLaneSource(deps, m, 'copy'), 'copying large objects', async (source) => {
              const self = { kind: 'large-objects', lane: 0 };
              await takeOverLane(target, self, [source, target]);
              await copyMissing(source, target, { generation, plan: m.plan, progress });
              await flushLane(target, self);
            }),
          ),
      );
      return { objects: progress.objects, bytes: progress.bytes };
    },
  };
}

async function copyMissing(
  source: Session,
  target: Session,
  { generation, plan, progress }: { generation: number; plan: Plan; progress: LargeObjectProgress },
): Promise<void> {
  const roles = await readRoleNames(target);
  const snapshot = await target.transaction(() => holdOpenGeneration(target, generation));
  await underSnapshot(source, snapshot, async () => {
    const wanted = await listLargeObjects(source);
    progress.total = wanted.length;
    const there = await begin(target, wanted);
    const todo = wanted.filter((oid) => !there.has(oid));
    const done = wanted.filter((oid) => there.has(oid));
    for (const oids of inBatches(done)) {
      progress.bytes += await target.transaction(() => readLengths(target, oids));
      progress.objects += oids.length;
    }
    for (const oids of inBatches(todo)) {
      progress.bytes += await target.transaction(async () => {
        await holdOpenGeneration(target, generation);
        return copyWhole(source, target, oids, { roles, plan });
      });
      progress.objects += oids.length;
    }
  });
}

/** Objects that are not there, with owners, privileges and comments, inside the caller's transactions. Answers bytes. */
async function copyWhole(
  source: Session,
  target: Session,
  oids: readonly number[],
  { roles, plan }: { roles: ReadonlySet<string>; plan: Plan },
): Promise<number> {
  const bytes = await copyContents(source, target, oids);
  const attributes = (await readLargeObjects(source, oids)).map((object) => attributesOf(object, roles, plan));
  const missing = new Set(attributes.flatMap((of) => of.missing));
  for (const role of missing) await recordWarning(target, STEP, withoutRole(role));
  const sql = attributes.flatMap((of) => of.sql);
  if (sql.length > 0) await target.query(sql.join(';\n'));
  return bytes;
}

/**
 * Copies those that were made or changed since, by comparing their contents on both sides. Those that are gone from the
 * source stay on the target, and a warning says so: nothing tells that nobody made them there. Answers how many it copied.
 */
export async function carryLargeObjects(
  source: Session,
  target: Session,
  plan: Plan,
  progress: LargeObjectProgress,
): Promise<number> {
  const [wanted, present] = [await listLargeObjects(source), await listLargeObjects(target)];
  const roles = await readRoleNames(target);
  progress.total = wanted.length;
  const there = new Set(present);
  let copied = 0;
  for (const oids of inBatches(wanted)) {
    // Each object is read at one moment: somebody may write to it, before the fence.
    await source.transaction(async () => {
      const [left, right] = [
        await hashContents(source, oids),
        await target.transaction(() =>
          hashContents(
            target,
            oids.filter((oid) => there.has(oid)),
          ),
        ),
      ];
      const changed = oids.filter((oid) => left.has(oid) && left.get(oid) !== right.get(oid));
      if (changed.length === 0) return;
      await target.transaction(async () => {
        await target.query('SELECT lo_unlink(oid) FROM unnest($1::oid[]) AS o (oid)', [
          changed.filter((oid) => there.has(oid)),
        ]);
        progress.bytes += await copyWhole(source, target, changed, { roles, plan });
      });
      copied += changed.length;
    }, 'BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
    progress.objects += oids.length;
  }
  const kept = new Set(wanted);
  const gone = present.filter((oid) => !kept.has(oid));
  if (gone.length > 0)
    await recordWarning(
      target,
      'carryOver',
      `${gone.length} large objects of the target are not on the source (any more), such as ${gone[0]}: they were left there.`,
    );
  return copied;
}

const readRoleNames = async (target: Session): Promise<Set<string>> =>
  new Set((await target.query<{ rolname: string }>('SELECT rolname FROM pg_roles')).map(({ rolname }) => rolname));

const withoutRole = (role: string): string =>
  `Role "${role}" is not on the target: large objects came without what it owned or was granted.`;

/**
 * Which of the wanted objects are there. The first attempt must find none: objects of somebody else would be taken for
 * copied ones.
 */
async function begin(target: Session, wanted: readonly number[]): Promise<Set<number>> {
  return target.transaction(async () => {
    const there = new Set(await listLargeObjects(target));
    const found = wanted.filter((oid) => there.has(oid));
    const began = await target.query(`SELECT FROM ${LEDGER_SCHEMA}.event WHERE step = $1`, [STEP]);
    if (began.length === 0 && found.length > 0)
      throw new MigrationError(
        'TargetNotEmpty',
        `The target has large object ${found[0]} already${found.length > 1 ? `, and ${found.length - 1} more of those to copy` : ''}.`,
        { object: `large object ${found[0]}` },
      );
    await recordEvent(target, STEP, `Began to copy large objects.`);
    return there;
  });
}

function* inBatches(oids: readonly number[]): Generator<readonly number[]> {
  for (let start = 0; start < oids.length; start += LIMITS.largeObjectsPerBatch)
    yield oids.slice(start, start + LIMITS.largeObjectsPerBatch);
}
