import type { Session } from './connection.ts';
import { displayName, quoteIdent, quoteLiteral, quoteName } from './identifier.ts';
import { readValues, SEQUENCES_PER_QUERY } from './sequence.ts';

/** A sequence that will give a value that a row has already. */
export interface SequenceBehind {
  /** As the server displays them. */
  sequence: string;
  column: string;
  /** That the sequence has come to, and that a row has. */
  value: string;
  taken: string;
  /** Sets it right. */
  remedy: string;
}

interface Used {
  schema: string;
  name: string;
  tableSchema: string;
  tableName: string;
  column: string;
  descends: boolean;
}

/**
 * Those that feed the first column of a unique index, which tells the furthest value at once. Rows are looked at before
 * sequences, so that nobody who inserts meanwhile makes one look behind.
 */
export async function sequencesBehind(session: Session): Promise<SequenceBehind[]> {
  const used = await listUsed(session);
  const behind: SequenceBehind[] = [];
  for (let first = 0; first < used.length; first += SEQUENCES_PER_QUERY) {
    const batch = used.slice(first, first + SEQUENCES_PER_QUERY);
    const furthest = await session.query<{ n: number; taken: string }>(
      batch
        .map(
          ({ tableSchema, tableName, column, descends }, n) =>
            `SELECT ${n} AS n, ${descends ? 'min' : 'max'}(${quoteIdent(column)})::text AS taken FROM ${quoteName(tableSchema, tableName)}`,
        )
        .join(' UNION ALL '),
    );
    const taken = new Map(furthest.map((row) => [row.n, row.taken]));
    for (const { n, value, called } of await readValues(session, batch)) {
      const [of, row] = [batch[n], taken.get(n) ?? null];
      if (of === undefined || row === null) continue;
      const ahead = (BigInt(value) - BigInt(row)) * (of.descends ? -1n : 1n);
      if (ahead > 0n || (ahead === 0n && called)) continue;
      behind.push({
        sequence: displayName(of.schema, of.name),
        column: `${displayName(of.tableSchema, of.tableName)}.${of.column}`,
        value,
        taken: row,
        remedy: `SELECT setval(${quoteLiteral(quoteName(of.schema, of.name))}, ${row});`,
      });
    }
  }
  return behind;
}

/** Only what our role may read all rows of. */
const listUsed = (session: Session): Promise<Used[]> =>
  session.query<Used>(
    `SELECT DISTINCT n.nspname AS schema, c.relname AS name, tn.nspname AS "tableSchema", t.relname AS "tableName", a.attname AS column,
            s.seqincrement < 0 AS descends
       FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
       JOIN LATERAL (
         SELECT d.refobjid AS oid, d.refobjsubid AS attnum FROM pg_depend d
          WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
         UNION
         SELECT f.adrelid, f.adnum FROM pg_depend d JOIN pg_attrdef f ON f.oid = d.objid
          WHERE d.classid = 'pg_attrdef'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid
       ) AS feeds ON true
       JOIN pg_class t ON t.oid = feeds.oid AND t.relkind IN ('r', 'p') AND t.relpersistence <> 't' AND NOT t.relispartition
       JOIN pg_namespace tn ON tn.oid = t.relnamespace
       JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = feeds.attnum
      WHERE NOT s.seqcycle AND a.atttypid = ANY ('{int2,int4,int8}'::regtype[])
        AND EXISTS (SELECT FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_am m ON m.oid = i.relam
                     WHERE x.indrelid = t.oid AND x.indisunique AND x.indisvalid AND x.indpred IS NULL AND x.indkey[0] = a.attnum AND m.amname = 'btree')
        AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
        AND has_schema_privilege(tn.oid, 'USAGE') AND has_table_privilege(t.oid, 'SELECT') AND NOT row_security_active(t.oid)
      ORDER BY 1, 2, 3, 4, 5`,
  );
