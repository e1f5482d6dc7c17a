import type { Session } from '../postgres/connection.ts';
import { displayName, quoteIdent, quoteName } from '../postgres/identifier.ts';
import { redact, sqlstateOf } from '../postgres/sqlstate.ts';
import type { Named } from './catalog.ts';
import { FIRST_NORMAL_OID, ofExtension, USER_SCHEMA } from './catalog.ts';
import type { DatabaseContext, Seen } from './check.ts';

/**
 * What the target computes anew from the copied rows, by functions that may have changed since, or that find their
 * tables through a search_path that no restore has. So it is computed now, on the source, and read only.
 */

/** Functions and operators of users, which an expression depends on; `kind` is the catalog of the expression's object. */
const usesOwnFunction = (kind: string, oid: string): string =>
  `EXISTS (SELECT FROM pg_depend d
            WHERE d.classid = '${kind}'::regclass AND d.objid = ${oid}
              AND d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass) AND d.refobjid >= ${FIRST_NORMAL_OID}
              AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = d.refclassid AND e.objid = d.refobjid AND e.deptype = 'e'))`;

const TIMEOUT = '57014';
const PRIVILEGE = '42501';

type Outcome<Row> = { rows: Row[] } | { error: string } | 'timeout' | 'forbidden';

/** Runs a query over rows within what is left of the budget. */
async function evaluate<Row>({ source, rowsBudget }: DatabaseContext, sql: string): Promise<Outcome<Row>> {
  if (rowsBudget.ms < 1) return 'timeout';
  const started = Date.now();
  try {
    const rows = await source.transaction(async () => {
      await source.query(`SET LOCAL statement_timeout = ${Math.ceil(rowsBudget.ms)}`);
      return source.query<Row>(sql);
    }, 'BEGIN READ ONLY');
    return { rows };
  } catch (error) {
    const state = sqlstateOf(error);
    if (state === null || !(error instanceof Error)) throw error;
    if (state === TIMEOUT) return 'timeout';
    return state === PRIVILEGE ? 'forbidden' : { error: redact(error.message) };
  } finally {
    rowsBudget.ms -= Date.now() - started;
  }
}

const tables = (context: DatabaseContext): number[] => context.tables.map(({ oid }) => oid);

const notTold = (object: string, what: string, outcome: 'timeout' | 'forbidden'): Seen => ({
  object,
  severity: 'warning',
  unknown: true,
  message: `${what} calls functions of yours, and whether the rows still agree with it could not be told: ${
    outcome === 'timeout' ? 'reading them takes too long' : 'the role may not call what it calls'
  }.`,
});

/** COPY checks each row again. NULL satisfies a CHECK. */
export async function checkConstraints(context: DatabaseContext): Promise<Seen[]> {
  const constraints = await readChecks(context.source, tables(context));
  const seen: Seen[] = [];
  for (const { schema, name, constraint, sql } of constraints) {
    const object = displayName(schema, name);
    const what = `CHECK constraint ${quoteIdent(constraint)}`;
    const outcome = await evaluate(context, sql);
    if (typeof outcome === 'string') seen.push(notTold(object, what, outcome));
    else if ('error' in outcome)
      seen.push({
        object,
        message: `${what} fails when it is computed with an empty search_path, as every restore does, so the rows cannot be copied: ${outcome.error}.`,
        remedy:
          'Write the schema in front of each name in the function, or give the function a SET search_path of its own.',
      });
    else if (outcome.rows.length > 0)
      seen.push({
        object,
        message: `The table has rows that break its own ${what}, so they cannot be copied.`,
        remedy: `Mend the rows, or ALTER TABLE ${quoteName(schema, name)} DROP CONSTRAINT ${quoteIdent(constraint)};`,
      });
  }
  return seen;
}

/** Of tables, and of the domains of their columns. Smallest first, so that a big table leaves time for the others. */
async function readChecks(source: Session, oids: number[]): Promise<(Named & { constraint: string; sql: string })[]> {
  const own = await source.query<Named & { constraint: string; expression: string }>(
    `SELECT n.nspname AS schema, c.relname AS name, k.conname AS constraint, pg_get_expr(k.conbin, k.conrelid) AS expression
       FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE k.contype = 'c' AND k.convalidated AND coalesce((to_jsonb(k) ->> 'conenforced')::bool, true)
        AND c.oid = ANY ($1::oid[]) AND ${usesOwnFunction('pg_constraint', 'k.oid')}
      ORDER BY c.relpages, 1, 2, 3`,
    [oids],
  );
  const ofDomains = await source.query<Named & { constraint: string; column: string; domain: string; base: string }>(
    `SELECT n.nspname AS schema, c.relname AS name, k.conname AS constraint, a.attname AS column,
            format_type(y.oid, NULL) AS domain, format_type(y.typbasetype, y.typtypmod) AS base
       FROM pg_constraint k JOIN pg_type y ON y.oid = k.contypid JOIN pg_attribute a ON a.atttypid = y.oid
       JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE k.contype = 'c' AND k.convalidated AND c.oid = ANY ($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
        AND ${usesOwnFunction('pg_constraint', 'k.oid')}
      ORDER BY c.relpages, 1, 2, 3`,
    [oids],
  );
  return [
    ...own.map(({ schema, name, constraint, expression }) => ({
      ...{ schema, name, constraint },
      sql: `SELECT 1 FROM ONLY ${quoteName(schema, name)} WHERE NOT (${expression}) LIMIT 1`,
    })),
    // The way to the base type and back makes the server check the domain; the aggregate gives no row of its own.
    ...ofDomains.map(({ schema, name, constraint, column, domain, base }) => ({
      ...{ schema, name, constraint },
      sql: `SELECT 1 FROM ONLY ${quoteName(schema, name)} HAVING count((${quoteIdent(column)}::${base})::${domain}) < 0`,
    })),
  ];
}

/** The target computes generated columns anew; they are not in what is copied. */
export async function generatedColumns(context: DatabaseContext): Promise<Seen[]> {
  if (context.source.version < 120000) return [];
  const columns = await context.source.query<Named & { column: string; expression: string }>(
    `SELECT n.nspname AS schema, c.relname AS name, a.attname AS column, pg_get_expr(f.adbin, f.adrelid) AS expression
       FROM pg_attribute a JOIN pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
       JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE a.attgenerated = 's' AND c.oid = ANY ($1::oid[]) 
        -- Before 15, what the expression needs is noted at the column instead of its default.
        AND (${usesOwnFunction('pg_attrdef', 'f.oid')} OR ${usesOwnFunction('pg_class', 'c.oid AND d.objsubid = a.attnum')})
      ORDER BY c.relpages, 1, 2, 3`,
    [tables(context)],
  );
  const seen: Seen[] = [];
  for (const { schema, name, column, expression } of columns) {
    const object = displayName(schema, name);
    const what = `Generated column ${quoteIdent(column)}`;
    // As text, because not every type has an equality.
    const sql = `SELECT 1 FROM ONLY ${quoteName(schema, name)} WHERE ${quoteIdent(column)}::text IS DISTINCT FROM (${expression})::text LIMIT 1`;
    const outcome = await evaluate(context, sql);
    if (typeof outcome === 'string') seen.push(notTold(object, what, outcome));
    else if ('error' in outcome)
      seen.push({
        object,
        message: `${what} cannot be computed with an empty search_path, as every restore does: ${outcome.error}.`,
        remedy:
          'Write the schema in front of each name in the function, or give the function a SET search_path of its own.',
      });
    else if (outcome.rows.length > 0)
      seen.push({
        object,
        message: `${what} holds values that its expression would not give today, and the target computes them anew.`,
        remedy: `UPDATE ${quoteName(schema, name)} SET ${quoteIdent(column)} = DEFAULT; -- which writes today's values; or DROP EXPRESSION of the column`,
      });
  }
  return seen;
}

/** A refresh is the only way to fill a view on the target. What takes too long is left to the refresh itself. */
export async function materializedViews(context: DatabaseContext): Promise<Seen[]> {
  const views = await context.source.query<Named & { query: string }>(
    `SELECT n.nspname AS schema, c.relname AS name, rtrim(pg_get_viewdef(c.oid), ';') AS query
       FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE c.relkind = 'm' AND c.relispopulated AND ${USER_SCHEMA} AND NOT ${ofExtension('pg_class', 'c.oid')}
      ORDER BY c.relpages, 1, 2`,
  );
  const seen: Seen[] = [];
  for (const { schema, name, query } of views) {
    // Counting whole rows below OFFSET 0 computes every column; count(*) would compute none.
    const sql = `SELECT count(q) FROM (SELECT * FROM (${query}) AS v OFFSET 0) AS q`;
    const outcome = await evaluate(context, sql);
    if (typeof outcome === 'string' || !('error' in outcome)) continue;
    seen.push({
      object: displayName(schema, name),
      message: `The materialized view is populated, but its query fails today, so it cannot be filled on the target: ${outcome.error}.`,
      remedy: `Mend the query or its rows, or REFRESH MATERIALIZED VIEW ${quoteName(schema, name)} WITH NO DATA;`,
    });
  }
  return seen;
}

export async function expressionIndexes(context: DatabaseContext): Promise<Seen[]> {
  const indexes = await context.source.query<
    Named & { index: string; expressions: string | null; predicate: string | null }
  >(
    `SELECT n.nspname AS schema, c.relname AS name, x.relname AS index,
            pg_get_expr(i.indexprs, i.indrelid) AS expressions, pg_get_expr(i.indpred, i.indrelid) AS predicate
       FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
       JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL) AND i.indisvalid
        AND (c.oid = ANY ($1::oid[]) OR c.relkind = 'm' AND c.relispopulated) AND ${USER_SCHEMA}
        AND ${usesOwnFunction('pg_class', 'x.oid')}
      ORDER BY c.relpages, 1, 2, 3`,
    [tables(context)],
  );
  const seen: Seen[] = [];
  for (const { schema, name, index, expressions, predicate } of indexes) {
    const values = expressions === null ? '*' : `ROW(${expressions})::text`;
    const where = predicate === null ? '' : ` WHERE ${predicate}`;
    const outcome = await evaluate(context, `SELECT count(${values}) FROM ONLY ${quoteName(schema, name)}${where}`);
    const object = displayName(schema, index);
    if (typeof outcome === 'string') seen.push(notTold(object, 'The index', outcome));
    else if ('error' in outcome)
      seen.push({
        object,
        message: `The index on ${displayName(schema, name)} cannot be built with an empty search_path, as every restore does: ${outcome.error}.`,
        remedy:
          'Write the schema in front of each name in the function, or give the function a SET search_path of its own.',
      });
  }
  return seen;
}

/** Rows that came in while the triggers of a foreign key were off. */
export async function disabledForeignKeys(context: DatabaseContext): Promise<Seen[]> {
  const keys = await context.source.query<
    Named & { key: string; schema2: string; name2: string; columns: string[]; columns2: string[] }
  >(
    `SELECT n.nspname AS schema, c.relname AS name, k.conname AS key, m.nspname AS schema2, r.relname AS name2,
            array(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS u (number, position)
                    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = u.number ORDER BY u.position) AS columns,
            array(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY AS u (number, position)
                    JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum = u.number ORDER BY u.position) AS columns2
       FROM pg_constraint k
       JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
       JOIN pg_class r ON r.oid = k.confrelid JOIN pg_namespace m ON m.oid = r.relnamespace
      WHERE k.contype = 'f' AND k.convalidated AND c.oid = ANY ($1::oid[])
        AND EXISTS (SELECT FROM pg_trigger t WHERE t.tgconstraint = k.oid AND t.tgenabled = 'D')
      ORDER BY c.relpages, 1, 2, 3`,
    [tables(context)],
  );
  const seen: Seen[] = [];
  for (const { schema, name, key, schema2, name2, columns, columns2 } of keys) {
    const filled = columns.map((column) => `c.${quoteIdent(column)} IS NOT NULL`).join(' AND ');
    const equal = columns
      .map((column, i) => `c.${quoteIdent(column)} = p.${quoteIdent(columns2[i] ?? '')}`)
      .join(' AND ');
    const outcome = await evaluate(
      context,
      `SELECT 1 FROM ONLY ${quoteName(schema, name)} AS c
        WHERE ${filled} AND NOT EXISTS (SELECT FROM ${quoteName(schema2, name2)} AS p WHERE ${equal}) LIMIT 1`,
    );
    if (typeof outcome !== 'string' && 'rows' in outcome && outcome.rows.length === 0) continue;
    const known = typeof outcome !== 'string' && 'rows' in outcome;
    seen.push({
      object: displayName(schema, name),
      ...(known ? {} : { unknown: true as const }),
      message: known
        ? `The triggers of foreign key ${quoteIdent(key)} are disabled, and the table has rows that break it; it is brought over as NOT VALID.`
        : `The triggers of foreign key ${quoteIdent(key)} are disabled, and whether its rows break it could not be told.`,
      remedy: 'Mend the rows, if they are not meant to be so.',
    });
  }
  return seen;
}
