import { LIMITS } from '../domain/limits.ts';
import type { Session } from './connection.ts';
import { quoteIdent, quoteLiteral } from './identifier.ts';

const PIECE = LIMITS.largeObjectPieceBytes;

/** A large object without its content. */
export interface LargeObject {
  oid: number;
  owner: string;
  comment: string | null;
  /** null: as PostgreSQL gives it to the owner. In the order in which they were granted. */
  grants: Grant[] | null;
}

interface Grant {
  grantor: string;
  /** null: PUBLIC */
  grantee: string | null;
  privilege: string;
  grantable: boolean;
}

/** All of them, in order. */
export const listLargeObjects = async (session: Session): Promise<number[]> =>
  (await session.query<{ oid: number }>('SELECT oid FROM pg_largeobject_metadata ORDER BY oid')).map(({ oid }) => oid);

export const readLargeObjects = (source: Session, oids: readonly number[]): Promise<LargeObject[]> =>
  source.query<LargeObject>(
    `SELECT m.oid, pg_get_userbyid(lomowner) AS owner, obj_description(m.oid, 'pg_largeobject') AS comment,
            CASE WHEN lomacl IS NOT NULL THEN (
              SELECT coalesce(json_agg(json_build_object('grantor', pg_get_userbyid(a.grantor), 'privilege', a.privilege_type,
                       'grantee', CASE WHEN a.grantee <> 0 THEN pg_get_userbyid(a.grantee) END, 'grantable', a.is_grantable)
                     ORDER BY a.ordinality), '[]')
                FROM aclexplode(lomacl) WITH ORDINALITY AS a) END AS grants
       FROM pg_largeobject_metadata m WHERE m.oid = ANY ($1::oid[]) ORDER BY m.oid`,
    [oids],
  );

/**
 * Copies the content of objects that the target does not have, inside the caller's transactions. Of each object at most
 * one piece is in memory.
 * @returns bytes
 */
export async function copyContents(source: Session, target: Session, oids: readonly number[]): Promise<number> {
  // One piece of each in one round trip: most large objects are small.
  const firsts = await source.query<{ oid: number; data: Buffer }>(
    'SELECT oid, lo_get(oid, 0, $2) AS data FROM unnest($1::oid[]) AS o (oid)',
    [oids, PIECE],
  );
  await target.query('SELECT lo_from_bytea(oid, data) FROM unnest($1::oid[], $2::bytea[]) AS o (oid, data)', [
    firsts.map(({ oid }) => oid),
    firsts.map(({ data }) => data),
  ]);
  let bytes = 0;
  for (const { oid, data } of firsts) bytes += data.length < PIECE ? data.length : await copyRest(source, target, oid);
  return bytes;
}

/** @returns the length of the whole object */
async function copyRest(source: Session, target: Session, oid: number): Promise<number> {
  for (let offset = PIECE; ; offset += PIECE) {
    const { data } = await source.one<{ data: Buffer }>('SELECT lo_get($1, $2, $3) AS data', [oid, offset, PIECE]);
    const length = offset + data.length;
    const isLast = data.length < PIECE;
    // Holes stay holes: what is not there reads as zeros. The last byte is written anyway, and makes the length.
    if (data.some((byte) => byte !== 0)) await put(target, oid, offset, data);
    else if (isLast && length > PIECE) await put(target, oid, length - 1, Buffer.alloc(1));
    if (isLast) return length;
  }
}

const put = (target: Session, oid: number, offset: number, data: Buffer): Promise<unknown[]> =>
  target.query('SELECT lo_put($1, $2, $3)', [oid, offset, data]);

/** Length of each object, in bytes. */
export async function readLengths(session: Session, oids: readonly number[]): Promise<number> {
  const { bytes } = await session.one<{ bytes: number }>(
    `SELECT coalesce(sum(length), 0)::float8 AS bytes
       FROM unnest($1::oid[]) AS o (oid), LATERAL lo_open(oid, x'40000'::int) AS fd,
            LATERAL lo_lseek64(fd, 0, 2) AS length, LATERAL lo_close(fd) AS closed WHERE closed = 0`,
    [oids],
  );
  return bytes;
}

/** A hash of what each of them holds, inside the caller's transaction; those that are not there are left out. */
export async function hashContents(session: Session, oids: readonly number[]): Promise<Map<number, string>> {
  const rows = await session.query<{ oid: number; hash: string }>(
    `SELECT o.oid, concat(length, ' ', (
              SELECT md5(string_agg(md5(lo_get(o.oid, piece, $2::int)), '' ORDER BY piece))
                FROM generate_series(0, length, $2::int) AS piece)) AS hash
       FROM unnest($1::oid[]) AS o (oid) JOIN pg_largeobject_metadata m ON m.oid = o.oid,
            LATERAL lo_open(o.oid, x'40000'::int) AS fd,
            LATERAL lo_lseek64(fd, 0, 2) AS length, LATERAL lo_close(fd) AS closed WHERE closed = 0`,
    [oids, PIECE],
  );
  return new Map(rows.map(({ oid, hash }) => [oid, hash]));
}

/** Owner, privileges and comment of objects that were just made. Names of roles that `roles` lacks are left out. */
export function attributesOf(
  object: LargeObject,
  roles: ReadonlySet<string>,
  wanted: { owners: boolean; privileges: boolean },
): { sql: string[]; missing: string[] } {
  const name = `LARGE OBJECT ${object.oid}`;
  const missing = new Set<string>();
  const known = (role: string | null) => {
    if (role === null || roles.has(role)) return true;
    missing.add(role);
    return false;
  };
  const sql: string[] = [];
  const hasOwner = wanted.owners && known(object.owner);
  if (hasOwner) sql.push(`ALTER ${name} OWNER TO ${quoteIdent(object.owner)}`);
  if (object.comment !== null) sql.push(`COMMENT ON ${name} IS ${quoteLiteral(object.comment)}`);
  if (wanted.privileges && object.grants !== null) {
    if (hasOwner) sql.push(`REVOKE ALL ON ${name} FROM ${quoteIdent(object.owner)}`);
    for (const { grantor, grantee, privilege, grantable } of object.grants) {
      if (!known(grantor) || !known(grantee)) continue;
      const to = grantee === null ? 'PUBLIC' : quoteIdent(grantee);
      const grant = `GRANT ${privilege} ON ${name} TO ${to}${grantable && grantee !== object.owner ? ' WITH GRANT OPTION' : ''}`;
      // The owner's grants need no change of role: a superuser grants in the owner's name.
      if (grantor === object.owner) sql.push(grant);
      else sql.push(`SET LOCAL ROLE ${quoteIdent(grantor)}`, grant, 'RESET ROLE');
    }
  }
  return { sql, missing: [...missing] };
}
