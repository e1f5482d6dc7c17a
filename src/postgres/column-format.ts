/** What decides about a type's binary format, from pg_type and pg_range of the source. */
export interface ColumnType {
  oid: number;
  name: string;
  /** pg_type.typtype: b(ase), d(omain), e(num), r(ange), m(ultirange), c(omposite), p(seudo) */
  kind: string;
  /** Of a domain; else 0. */
  base: number;
  /** Of a true array, which is its element's pg_type.typarray; else 0. */
  element: number;
  /** Of a range or multirange; else 0. */
  subtype: number;
}

/**
 * Built-in types whose binary format is the same from 10 to 18 and means the same on every server. Not here:
 * - reg*: their binary is an oid, which is another object on the target, silently
 * - money: its scale comes from lc_monetary
 * - xml: its binary carries an encoding declaration that its text does not
 * - tsquery: its binary input refuses the empty one ("operand not found"; seen on 18), which its output writes
 * - aclitem, pg_node_tree: no binary input
 * - composites: their binary holds the oids of the column types
 * - types of extensions: their format is their version's business
 */
const STABLE = new Set(
  `bool char name bytea int2 int4 int8 float4 float8 numeric oid xid cid tid xid8 pg_lsn text varchar bpchar refcursor
   date time timetz timestamp timestamptz interval uuid json jsonb jsonpath bit varbit inet cidr macaddr macaddr8
   point line lseg box path polygon circle tsvector txid_snapshot pg_snapshot int2vector oidvector`.split(/\s+/),
);

/** Objects that initdb's own catalog data makes have oids below this, the same on every server (transam.h). */
const FIRST_GENBKI_OID = 10_000;

/** Whether the column can go by binary COPY: its type, unwrapped from domains, ranges and arrays, is on the list. */
export function isBinaryStable(oid: number, types: ReadonlyMap<number, ColumnType>): boolean {
  const type = types.get(oid);
  if (type === undefined) return false;
  // An enum's binary is its label.
  if (type.kind === 'e') return true;
  if (type.kind === 'd') return isBinaryStable(type.base, types);
  if (type.kind === 'r' || type.kind === 'm') return isBinaryStable(type.subtype, types);
  // A user's array too: it holds the oid of its element type, which differs between servers.
  if (type.kind !== 'b' || type.oid >= FIRST_GENBKI_OID) return false;
  return type.element === 0 ? STABLE.has(type.name) : isBinaryStable(type.element, types);
}
