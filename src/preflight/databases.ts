import type { Finding } from '../domain/finding.ts';
import type { Plan } from '../domain/plan.ts';
import type { Session } from '../postgres/connection.ts';
import { quoteIdent } from '../postgres/identifier.ts';
import type { SourceDatabase } from './check.ts';

interface Row extends SourceDatabase {
  template: boolean;
  allowsConnections: boolean;
}

/** What managed servers keep for themselves; nobody else may connect to it. */
const OF_PROVIDERS = [
  'rdsadmin',
  'cloudsqladmin',
  'alloydbadmin',
  'alloydbmetadata',
  'azure_maintenance',
  'azure_sys',
  '_aiven',
];

/**
 * The databases that the plan means. `holdsObjects` is asked about `postgres`, which every server has and which is meant
 * only when somebody uses it.
 */
export async function databasesInScope(
  source: Session,
  plan: Plan,
  holdsObjects: (database: string) => Promise<boolean>,
): Promise<{ databases: SourceDatabase[]; findings: Finding[] }> {
  const rows = await source.query<Row>(
    // Of a database that we may not connect to, the size is not told.
    `SELECT datname AS database, oid AS "sourceOid", datistemplate AS template,
            datallowconn AND datconnlimit <> -2 AS "allowsConnections",
            CASE WHEN has_database_privilege(oid, 'CONNECT') OR pg_has_role('pg_read_all_stats', 'USAGE')
                 THEN pg_database_size(oid)::float8 ELSE 0 END AS bytes
       FROM pg_database ORDER BY datname`,
  );
  const { include, exclude } = plan.databases;
  const findings = [...unmatched(include, rows, 'include', 'error'), ...unmatched(exclude, rows, 'exclude', 'warning')];
  const databases: SourceDatabase[] = [];
  for (const { database, sourceOid, bytes, template, allowsConnections } of rows) {
    const named = include.includes(database);
    if (exclude.includes(database) || (!named && (include.length > 0 || template || OF_PROVIDERS.includes(database))))
      continue;
    if (template) findings.push(isTemplate(database));
    else if (!allowsConnections) findings.push(refusesConnections(database));
    else if (named || database !== 'postgres' || (await holdsObjects(database)))
      databases.push({ database, sourceOid, bytes });
  }
  if (databases.length === 0 && findings.every(({ severity }) => severity !== 'error')) findings.push(nothing());
  return { databases, findings };
}

const finding = (code: string, object: string | null, message: string, remedy: string): Finding => ({
  ...{ code, severity: 'error', server: 'source', database: null, object, message, remedy },
});

function unmatched(names: string[], rows: Row[], list: string, severity: 'error' | 'warning'): Finding[] {
  return names
    .filter((name) => !rows.some(({ database }) => database === name))
    .map((name) => {
      const near = rows.find(({ database }) => database.toLowerCase() === name.toLowerCase())?.database;
      const message = `"databases.${list}" names ${quoteIdent(name)}, but the source has no such database.`;
      const remedy = near === undefined ? 'Correct the name; names are exact.' : `Names are exact: write "${near}".`;
      return { ...finding('filter-matches-nothing', quoteIdent(name), message, remedy), severity };
    });
}

const isTemplate = (database: string): Finding =>
  finding(
    'filter-matches-nothing',
    quoteIdent(database),
    '"databases.include" names a template database, and those are not migrated.',
    'Take it out of "databases.include".',
  );

const refusesConnections = (database: string): Finding => ({
  ...finding(
    'database-refuses-connections',
    quoteIdent(database),
    'The database takes no connections, so it cannot be read.',
    `ALTER DATABASE ${quoteIdent(database)} ALLOW_CONNECTIONS true; -- or put it into "databases.exclude"`,
  ),
  database,
});

const nothing = (): Finding =>
  finding(
    'nothing-to-migrate',
    null,
    'The source has no database to migrate: only templates, an empty "postgres" or excluded ones.',
    'Look at "source" and at "databases" of the plan.',
  );
