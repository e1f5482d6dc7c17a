import { quoteIdent, quoteLiteral } from '../postgres/identifier.ts';
import type { DatabaseContext, Seen } from './check.ts';

export async function largeObjects({ source, method }: DatabaseContext): Promise<Seen[]> {
  const { count } = await source.one<{ count: number }>(
    'SELECT count(*)::float8 AS count FROM pg_largeobject_metadata',
  );
  if (count === 0) return [];
  const which = count === 1 ? 'One large object is' : `${count} large objects are`;
  const later = method === 'replication' ? ', and at the cutover once more those that were made or changed since' : '';
  return [{ message: `${which} copied${later}.` }];
}

/** has_largeobject_privilege came with 18; before, this is what the server goes by. */
const MAY_NOT_READ = (version: number): string =>
  version >= 180000
    ? `NOT has_largeobject_privilege(m.oid, 'SELECT')`
    : `NOT current_setting('lo_compat_privileges')::bool AND NOT current_setting('is_superuser')::bool
       AND NOT EXISTS (SELECT FROM aclexplode(coalesce(m.lomacl, acldefault('L', m.lomowner))) AS a
                        WHERE a.privilege_type = 'SELECT' AND (a.grantee = 0 OR pg_has_role(a.grantee, 'USAGE')))`;

/** There may be millions of them, so they are counted, and one statement is for all. */
export async function largeObjectSelect({ source }: DatabaseContext): Promise<Seen[]> {
  const { count, first, me } = await source.one<{ count: number; first: string | null; me: string }>(
    `SELECT count(*)::float8 AS count, min(m.oid::int8)::text AS first, current_user AS me
       FROM pg_largeobject_metadata m WHERE ${MAY_NOT_READ(source.version)}`,
  );
  if (count === 0 || first === null) return [];
  return [
    {
      message: `${quoteIdent(me)} may not read ${count === 1 ? `large object ${first}` : `${count} large objects, ${first} being the first`}.`,
      remedy: `DO $$ DECLARE object oid; BEGIN FOR object IN SELECT oid FROM pg_largeobject_metadata LOOP EXECUTE format('GRANT SELECT ON LARGE OBJECT %s TO %I', object, ${quoteLiteral(me)}); END LOOP; END $$;`,
    },
  ];
}
