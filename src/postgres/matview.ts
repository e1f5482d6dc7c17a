import type { Session } from './connection.ts';
import { displayName, quoteName } from './identifier.ts';

export interface MaterializedView {
  schema: string;
  name: string;
}

/** Populated materialized views of the source, but for those of extensions. */
export const readPopulated = (source: Session): Promise<MaterializedView[]> =>
  source.query<MaterializedView>(
    `SELECT s.nspname AS schema, c.relname AS name FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace
      WHERE c.relkind = 'm' AND c.relispopulated
        AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')`,
  );

/** The target's materialized views that are populated, or not, each after those that it reads, also through plain views. */
export async function readInOrder(target: Session, populated: boolean): Promise<MaterializedView[]> {
  const views = await target.query<
    MaterializedView & { oid: string; materialized: boolean; populated: boolean; reads: string[] }
  >(
    `SELECT c.oid::text, s.nspname AS schema, c.relname AS name, c.relkind = 'm' AS materialized, c.relispopulated AS populated,
            array(SELECT DISTINCT d.refobjid::text
                    FROM pg_rewrite r JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
                    JOIN pg_class v ON v.oid = d.refobjid AND v.relkind IN ('v', 'm')
                   WHERE r.ev_class = c.oid AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> c.oid) AS reads
       FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace
      WHERE c.relkind IN ('v', 'm') AND c.oid >= 16384
      ORDER BY s.nspname, c.relname`,
  );
  const byOid = new Map(views.map((view) => [view.oid, view]));
  const ordered: MaterializedView[] = [];
  const visited = new Set<string>();
  const visit = (oid: string): void => {
    const view = byOid.get(oid);
    if (view === undefined || visited.has(oid)) return;
    visited.add(oid);
    view.reads.forEach(visit);
    if (view.materialized && view.populated === populated) ordered.push({ schema: view.schema, name: view.name });
  };
  views.forEach(({ oid }) => visit(oid));
  return ordered;
}

export const displayView = ({ schema, name }: MaterializedView): string => displayName(schema, name);

export async function refresh(target: Session, { schema, name }: MaterializedView): Promise<void> {
  await target.query(`REFRESH MATERIALIZED VIEW ${quoteName(schema, name)}`);
}
