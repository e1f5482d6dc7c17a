import pg from 'pg';

export interface Comparison {
  database: string;
  tables: number;
  rows: number;
  /** One sentence each; empty: equal. */
  differences: string[];
}

interface Digest {
  rows: string;
  sum: string;
}

const ident = (name: string): string => `"${name.replaceAll('"', '""')}"`;

const SETTINGS = `SET extra_float_digits = 3; SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres'; SET TimeZone = 'UTC'; SET search_path = ''; SET row_security = off`;

const HASH = (text: string): string => `hashtextextended(${text}, 0)`;
/** Before 11. */
const MD5 = (text: string): string => `('x' || left(md5(${text}), 16))::bit(64)::bigint`;

/**
 * Compares every row of every table, every sequence, and what each materialized view would hold after a refresh now:
 * its rows are as old as its last refresh, which was another time on either side. It shares no code with the migration,
 * so that one mistake cannot hide another. Order does not matter: the sum of a 64-bit hash of each row's text. Of servers
 * before 12, which print floats with digits of their own, only 15 digits of them.
 */
export async function compareDatabases(database: string, sourceUri: string, targetUri: string): Promise<Comparison> {
  const [source, target] = [client(sourceUri, database), client(targetUri, database)];
  try {
    await Promise.all([source.connect(), target.connect()]);
    await Promise.all([source.query(SETTINGS), target.query(SETTINGS)]);
    const { rows: versions } = await source.query<{ version: number }>(
      `SELECT current_setting('server_version_num')::int AS version`,
    );
    const version = versions[0]?.version ?? 0;
    if (version < 120000) await Promise.all([source, target].map((side) => side.query('SET extra_float_digits = 0')));
    const hash = version < 110000 ? MD5 : HASH;
    const [ours, theirs] = await Promise.all([digests(source, hash), digests(target, hash)]);
    const differences: string[] = [];
    let rows = 0;
    for (const name of new Set([...ours.keys(), ...theirs.keys()])) {
      const [a, b] = [ours.get(name), theirs.get(name)];
      if (a === undefined || b === undefined)
        differences.push(`${name} is only on the ${a === undefined ? 'target' : 'source'}.`);
      else if (a.rows !== b.rows || a.sum !== b.sum)
        differences.push(
          `${name}: ${a.rows} rows with sum ${a.sum} on the source, ${b.rows} with ${b.sum} on the target.`,
        );
      rows += Number(a?.rows ?? 0);
    }
    return { database, tables: ours.size, rows, differences };
  } finally {
    await Promise.all([source.end(), target.end()]);
  }
}

/** Not by `connectionString`: pg leaves some characters of a database's name as they are escaped in a URI. */
function client(uri: string, database: string): pg.Client {
  const { hostname, port, username, password } = new URL(uri);
  const [user, secret] = [decodeURIComponent(username), decodeURIComponent(password)];
  return new pg.Client({ host: hostname, port: Number(port), user, password: secret, database });
}

async function digests(client: pg.Client, hash: (text: string) => string): Promise<Map<string, Digest>> {
  const { rows: relations } = await client.query<{ schema: string; name: string; kind: string }>(
    `SELECT n.nspname AS schema, c.relname AS name, c.relkind AS kind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'm', 'S') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'`,
  );
  const found = new Map<string, Digest>();
  for (const { schema, name, kind } of relations) {
    const relation = `${ident(schema)}.${ident(name)}`;
    const columns = kind === 'S' ? '(t.last_value, t.is_called)::text' : 't::text';
    const { rows } = await client.query<Digest>(
      `SELECT count(*)::text AS rows, coalesce(sum(${hash(columns)}), 0)::text AS sum
         FROM ${kind === 'm' ? `(${await definition(client, relation)})` : `ONLY ${relation}`} t`,
    );
    if (rows[0] !== undefined) found.set(relation, rows[0]);
  }
  return found;
}

async function definition(client: pg.Client, relation: string): Promise<string> {
  const { rows } = await client.query<{ query: string }>('SELECT pg_get_viewdef($1::regclass) AS query', [relation]);
  return (rows[0]?.query ?? '').replace(/;\s*$/, '');
}
