import { LEDGER_SCHEMA } from '../src/contract.ts';
import { LIMITS } from '../src/domain/limits.ts';
import type { Migration } from '../src/domain/migration.ts';
import type { Session } from '../src/postgres/connection.ts';
import { differencesOf } from '../src/postgres/definition-difference.ts';
import { readDefinitions, readFingerprints, readTargetFingerprints } from '../src/postgres/definitions.ts';
import { displayName, quoteIdent, quoteName } from '../src/postgres/identifier.ts';
import type { Table } from '../src/postgres/scope.ts';
import { isPublished, listTables } from '../src/postgres/scope.ts';

interface Known {
  oid: number;
  schema: string;
  name: string;
  columns: string[];
  published: boolean;
}

/**
 * How the tables that are replicated differ between the servers now, as sentences with what to do about each; DDL is not
 * replicated. Compared are the servers with each other, and not with what they were: so a difference goes away when the
 * target has been given the same change. One query a server, unless something differs.
 */
export async function describeDifferences(m: Migration, source: Session, target: Session): Promise<string[]> {
  const known = await target.query<Known>(
    `SELECT oid::float8 AS oid, schema, name, columns, published FROM ${LEDGER_SCHEMA}.relation`,
  );
  const replicated = new Map(known.filter(({ published }) => published).map((table) => [table.oid, table]));
  const onSource = await readFingerprints(source, [...replicated.keys()]);
  const onTarget = new Map((await readTargetFingerprints(target)).map((found) => [key(found), found]));
  const said: string[] = [];
  const differing = new Map<number, number>();
  for (const table of onSource) {
    const before = replicated.get(table.oid);
    const counterpart = onTarget.get(key(table));
    if (counterpart !== undefined) {
      if (counterpart.fingerprint !== table.fingerprint) differing.set(table.oid, counterpart.oid);
    } else if (before !== undefined && key(before) !== key(table)) said.push(renamed(before, table));
    else said.push(`${displayName(table.schema, table.name)} is not on the target any more.`);
  }
  const there = new Set(onSource.map(({ oid }) => oid));
  const gone = new Map(
    [...replicated.values()].filter(({ oid }) => !there.has(oid)).map((table) => [key(table), table]),
  );
  for (const table of await newTables(m, source, known)) {
    const name = displayName(table.schema, table.name);
    if (gone.delete(key(table)))
      said.push(
        `${name} was dropped and created anew on the source, and is not replicated any more: empty it on the target, and ` +
          'bring its rows when writes have stopped.',
      );
    else if (!onTarget.has(key(table)))
      said.push(
        `${name} was created on the source after the start, and is not replicated: create it on the target, and bring its ` +
          'rows when writes have stopped.',
      );
  }
  for (const [where, table] of gone)
    if (onTarget.has(where))
      said.push(
        `${displayName(table.schema, table.name)} was dropped on the source; on the target: DROP TABLE ${quoteName(table.schema, table.name)};`,
      );

  const some = [...differing.keys()].slice(0, LIMITS.namesInMessage);
  const left = await readDefinitions(source, some);
  const right = await readDefinitions(
    target,
    some.map((oid) => differing.get(oid) ?? 0),
  );
  for (const table of left) {
    const counterpart = right.find(({ oid }) => oid === differing.get(table.oid));
    if (counterpart !== undefined)
      said.push(...differencesOf(table, counterpart, replicated.get(table.oid)?.columns ?? []));
  }
  const more = said.length - LIMITS.namesInMessage;
  return more > 0 ? [...said.slice(0, LIMITS.namesInMessage), `And ${more} more differences.`] : said;
}

const key = ({ schema, name }: { schema: string; name: string }): string => JSON.stringify([schema, name]);

function renamed(before: Known, now: { schema: string; name: string }): string {
  const sql = [
    ...(before.name === now.name
      ? []
      : [`ALTER TABLE ${quoteName(before.schema, before.name)} RENAME TO ${quoteIdent(now.name)};`]),
    ...(before.schema === now.schema
      ? []
      : [`ALTER TABLE ${quoteName(before.schema, now.name)} SET SCHEMA ${quoteIdent(now.schema)};`]),
  ].join(' ');
  return `${displayName(before.schema, before.name)} is ${displayName(now.schema, now.name)} now on the source; on the target: ${sql}`;
}

/**
 * Tables that came into the plan's scope after the snapshot: nobody replicates them. Where the target has a table of the
 * name, somebody has seen to it; the report names them all the same.
 */
export async function newTables(m: Migration, source: Session, known: readonly { oid: number }[]): Promise<Table[]> {
  const oids = new Set(known.map(({ oid }) => oid));
  return (await listTables(source, m.plan, m.database)).filter((table) => isPublished(table) && !oids.has(table.oid));
}
