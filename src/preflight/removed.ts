import { displayName, quoteIdent, quoteName } from '../postgres/identifier.ts';
import type { Named } from './catalog.ts';
import { FIRST_NORMAL_OID, ofExtension, USER_SCHEMA } from './catalog.ts';
import type { DatabaseContext, Seen } from './check.ts';

/**
 * What PostgreSQL no longer has: a target would refuse its definition, after the rows were copied or before. Newer
 * sources cannot have it, so nothing here asks for a version. It is pg_upgrade's list, and what depends on hidden oids.
 */
export async function removedFeatures({ source }: DatabaseContext): Promise<Seen[]> {
  const rows = await source.query<Named & { what: string; since: number; remedy: string }>(
    `SELECT n.nspname AS schema, c.relname AS name, format('Column %I is of type %s', a.attname, format_type(a.atttypid, NULL)) AS what, 12 AS since,
            CASE WHEN c.relkind IN ('v', 'm') THEN 'Let the query of the view cast it to timestamptz or interval.'
                 WHEN c.relkind = 'c' THEN format('ALTER TYPE %I.%I ALTER ATTRIBUTE %I TYPE timestamptz; -- or interval', n.nspname, c.relname, a.attname)
                 ELSE format('ALTER TABLE %I.%I ALTER COLUMN %I TYPE timestamptz; -- or interval', n.nspname, c.relname, a.attname) END AS remedy
       FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE a.atttypid IN (${GONE_TYPES}) AND a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c')
        AND ${USER_SCHEMA} AND NOT ${ofExtension('pg_class', 'c.oid')}
     UNION ALL
     SELECT n.nspname, y.typname, format('The domain is of type %s', format_type(y.typbasetype, NULL)), 12, 'Make a domain of timestamptz or interval instead.'
       FROM pg_type y JOIN pg_namespace n ON n.oid = y.typnamespace
      WHERE y.typbasetype IN (${GONE_TYPES}) AND NOT ${ofExtension('pg_type', 'y.oid')}
     UNION ALL
     SELECT n.nspname, p.proname, 'The function takes or returns abstime, reltime or tinterval', 12, format('DROP FUNCTION %s;', p.oid::regprocedure)
       FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
      WHERE p.oid >= ${FIRST_NORMAL_OID} AND NOT ${ofExtension('pg_proc', 'p.oid')}
        AND array(${GONE_TYPES}) && (p.prorettype || p.proargtypes::oid[] || p.proallargtypes)
     UNION ALL
     SELECT n.nspname, c.relname, format('The %s uses the hidden column oid', pg_describe_object(d.classid, d.objid, 0)), 12,
            'Drop it, or let it use an ordinary column.'
       FROM pg_depend d JOIN pg_class c ON c.oid = d.refobjid JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE d.refclassid = 'pg_class'::regclass AND d.refobjsubid = -2 AND (to_jsonb(c) ->> 'relhasoids')::bool AND ${USER_SCHEMA}
     UNION ALL
     SELECT n.nspname, o.oprname, 'The operator follows its operand', 14, format('DROP OPERATOR %s;', o.oid::regoperator)
       FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace
      WHERE o.oprright = 0 AND o.oprleft <> 0 AND o.oid >= ${FIRST_NORMAL_OID} AND NOT ${ofExtension('pg_operator', 'o.oid')}
     UNION ALL
     SELECT n.nspname, p.proname, 'The aggregate is made of a function of anyarray', 14,
            format('DROP AGGREGATE %s; -- and make it on the target, of anycompatiblearray', p.oid::regprocedure)
       FROM pg_aggregate a JOIN pg_proc p ON p.oid = a.aggfnoid JOIN pg_namespace n ON n.oid = p.pronamespace
      WHERE p.oid >= ${FIRST_NORMAL_OID} AND NOT ${ofExtension('pg_proc', 'p.oid')}
        AND a.aggtranstype IN ('anyarray'::regtype, 'anyelement'::regtype) AND (a.aggtransfn IN (${ANYARRAY}) OR a.aggfinalfn IN (${ANYARRAY}))
     UNION ALL
     SELECT n.nspname, o.oprname, 'The operator is made of a function of anyarray', 14,
            format('DROP OPERATOR %s; -- and make it on the target, of anycompatiblearray', o.oid::regoperator)
       FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace
      WHERE o.oid >= ${FIRST_NORMAL_OID} AND o.oprcode IN (${ANYARRAY}) AND NOT ${ofExtension('pg_operator', 'o.oid')}
     UNION ALL
     SELECT n.nspname, v.conname, 'The encoding conversion has a function without an answer', 14, format('DROP CONVERSION %I.%I;', n.nspname, v.conname)
       FROM pg_conversion v JOIN pg_proc p ON p.oid = v.conproc JOIN pg_namespace n ON n.oid = v.connamespace
      WHERE v.oid >= ${FIRST_NORMAL_OID} AND p.prorettype = 'void'::regtype AND NOT ${ofExtension('pg_conversion', 'v.oid')}
      ORDER BY 1, 2, 3`,
  );
  return rows.map(({ schema, name, what, since, remedy }) => ({
    object: displayName(schema, name),
    message: `${what}, which PostgreSQL ${since} and later do not know, so the target refuses it.`,
    remedy,
  }));
}

/** With their arrays. Users may have types of these names by now. */
const GONE_TYPES = `SELECT oid FROM pg_type WHERE typnamespace = 'pg_catalog'::regnamespace AND typname ~ '^_?(abstime|reltime|tinterval)$'`;

/** Functions that take anycompatiblearray since 14. */
const ANYARRAY = `SELECT to_regprocedure(signature)::oid FROM unnest('{"array_append(anyarray,anyelement)","array_cat(anyarray,anyarray)",
  "array_prepend(anyelement,anyarray)","array_remove(anyarray,anyelement)","array_replace(anyarray,anyelement,anyelement)",
  "array_position(anyarray,anyelement)","array_position(anyarray,anyelement,integer)","array_positions(anyarray,anyelement)",
  "width_bucket(anyelement,anyarray)"}'::text[]) AS s (signature) WHERE to_regprocedure(signature) IS NOT NULL`;

/** Gone since 12. Who relies on the numbers must keep them in a column of their own. */
export async function tablesWithOids({ source, tables }: DatabaseContext): Promise<Seen[]> {
  const rows = await source.query<Named>(
    `SELECT n.nspname AS schema, c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE c.oid = ANY ($1::oid[]) AND (to_jsonb(c) ->> 'relhasoids')::bool ORDER BY 1, 2`,
    [tables.map(({ oid }) => oid)],
  );
  return rows.map(({ schema, name }) => ({
    object: displayName(schema, name),
    message: `The table was made WITH OIDS; its hidden column ${quoteIdent('oid')} does not exist on the target, and its numbers are not carried over.`,
    remedy: `ALTER TABLE ${quoteName(schema, name)} SET WITHOUT OIDS; -- or first copy them into an ordinary column`,
  }));
}

/** Publications have TRUNCATE since 11. */
export async function truncateNotReplicated({ source }: DatabaseContext): Promise<Seen[]> {
  const { replicated } = await source.one<{ replicated: boolean }>(
    `SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'pg_publication'::regclass AND attname = 'pubtruncate') AS replicated`,
  );
  if (replicated) return [];
  return [
    {
      message:
        'PostgreSQL 10 does not replicate TRUNCATE: a table that is truncated before the cutover keeps its rows on the target.',
      remedy: 'Truncate no table until the cutover, use DELETE instead, or set "method" to "dump".',
    },
  ];
}
