import { MigrationError } from '../src/domain/failure.ts';
import type { Migration } from '../src/domain/migration.ts';
import type { Session } from '../src/postgres/connection.ts';
import type { DatabaseFacts } from '../src/postgres/database.ts';
import {
  createDatabase,
  databaseExists,
  findUserObject,
  databaseDifferences,
  readDatabase,
  setDatabaseOwner,
} from '../src/postgres/database.ts';
import { createLedger, ledgerExists, recordWarning } from '../src/postgres/ledger.ts';
import { toMigrationError } from '../src/postgres/sqlstate.ts';
import type { ActivityDeps } from './context.ts';
import { openSource, openTarget, withSession } from './context.ts';

const STEP = 'createDatabase';

export function createDatabaseActivities(deps: ActivityDeps) {
  return {
    /**
     * Makes the database on the target, or takes an empty one, and puts the ledger into it. Dying between the two is
     * fine: the next attempt finds an empty database.
     * @throws MigrationError `TargetNotEmpty`, `AnotherMigration`
     */
    async createDatabase(m: Migration): Promise<{ created: boolean }> {
      const source = await withSession(
        openSource(deps, m, 'control'),
        `reading database "${m.database}"`,
        readDatabase,
      );
      const created = await makeDatabase(deps, m, source);
      await withSession(openTarget(deps, m, 'control'), `setting up database "${m.database}"`, (target) =>
        setUp(target, m, source, created),
      );
      return { created };
    },
  };
}

async function makeDatabase(deps: ActivityDeps, m: Migration, source: DatabaseFacts): Promise<boolean> {
  const maintenance = deps.endpoint(m.plan.target, 'target').info['dbname'] ?? 'postgres';
  const opening = openTarget(deps, m, 'control', { database: maintenance });
  return withSession(opening, `creating database "${m.database}"`, async (target) => {
    if (await databaseExists(target, m.database)) return false;
    if (!m.plan.createDatabases)
      throw new MigrationError(
        'SchemaFailed',
        `Database "${m.database}" is not there on the target, and the plan forbids to create it.`,
        {
          object: m.database,
          next: 'Create it empty on the target, or set "createDatabases" to true.',
        },
      );
    try {
      return await createDatabase(target, m.database, source);
    } catch (error) {
      const doing = `creating database "${m.database}"`;
      throw toMigrationError(error, { server: 'target', doing, object: m.database, otherwise: 'SchemaFailed' });
    }
  });
}

async function setUp(target: Session, m: Migration, source: DatabaseFacts, created: boolean): Promise<void> {
  // Two attempts at once: the second one waits here, and then finds the ledger of the first.
  await target.query("SELECT pg_advisory_lock(hashtext('pgtransit'), hashtext('ledger'))");
  const isOurs = await ledgerExists(target);
  if (!isOurs) await requireEmpty(target, m);
  const owner = isOurs ? null : await ownerWarning(target, m, source);
  const differences = databaseDifferences(source, await readDatabase(target));
  await target.transaction(async () => {
    await createLedger(target, m, created);
    if (owner !== null) await recordWarning(target, STEP, owner);
    if (differences.length > 0)
      await recordWarning(target, STEP, `The database on the target has ${differences.join(', ')}.`);
  });
}

async function requireEmpty(target: Session, m: Migration): Promise<void> {
  const object = await findUserObject(target);
  if (object === null) return;
  throw new MigrationError(
    'TargetNotEmpty',
    `Database "${m.database}" on the target is not empty: it holds ${object}.`,
    { object },
  );
}

async function ownerWarning(target: Session, m: Migration, source: DatabaseFacts): Promise<string | null> {
  if (!m.plan.owners || (await readDatabase(target)).owner === source.owner) return null;
  return setDatabaseOwner(target, m.database, source.owner);
}
