/** Pieces of SQL that several checks share. */

/** Schemas of the system and of ours; `n` is pg_namespace. */
export const USER_SCHEMA = `n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pgtransit')`;

/** Objects below this oid come from initdb (transam.h). */
export const FIRST_NORMAL_OID = 16384;

/** Whether the object belongs to an extension, which is how it gets to the target. */
export const ofExtension = (catalog: string, oid: string): string =>
  `EXISTS (SELECT FROM pg_depend e WHERE e.classid = '${catalog}'::regclass AND e.objid = ${oid} AND e.deptype = 'e')`;

export interface Named {
  schema: string;
  name: string;
}
