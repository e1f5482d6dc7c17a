import type { Column, TableDefinition } from './definitions.ts';
import { displayName, quoteIdent, quoteName } from './identifier.ts';

/**
 * How the definition of a table that is replicated differs between the servers, each difference as a sentence with what to
 * do on the target; none for what the target has more, and what does not hinder: whoever changes a definition begins there.
 * `copied`: the columns that it had when its rows were copied.
 */
export function differencesOf(source: TableDefinition, target: TableDefinition, copied: readonly string[]): string[] {
  const table = displayName(source.schema, source.name);
  const alter = `ALTER TABLE ${quoteName(target.schema, target.name)}`;
  const say = (what: string, sql: string) => `${table}: ${what}; on the target: ${sql};`;
  const said: string[] = [];
  const byName = (columns: Column[]) => new Map(columns.map((column) => [column.name, column]));
  const [left, right] = [byName(source.columns), byName(target.columns)];
  const added = source.columns.filter(({ name }) => !right.has(name));
  const more = target.columns.filter(({ name }) => !left.has(name));
  const dropped = more.filter(({ name }) => copied.includes(name));

  for (const column of added) {
    // A new column beside a vanished one of its type: to add one would lose what the old one holds.
    const old = dropped.find(({ comparable }) => comparable === column.comparable);
    if (old === undefined)
      said.push(
        say(
          `column ${quoteIdent(column.name)} ${column.type} was added on the source`,
          `${alter} ADD COLUMN ${declare(column)}`,
        ),
      );
    else {
      dropped.splice(dropped.indexOf(old), 1);
      more.splice(more.indexOf(old), 1);
      said.push(
        say(
          `column ${quoteIdent(old.name)} seems to have been renamed to ${quoteIdent(column.name)} on the source`,
          `${alter} RENAME COLUMN ${quoteIdent(old.name)} TO ${quoteIdent(column.name)}`,
        ),
      );
    }
  }
  for (const { name, ...column } of more) {
    if (dropped.some((gone) => gone.name === name))
      said.push(
        say(`column ${quoteIdent(name)} was dropped on the source`, `${alter} DROP COLUMN ${quoteIdent(name)}`),
      );
    else if (column.notNull && column.default === null && column.identity === '' && column.generated === '')
      said.push(
        say(
          `column ${quoteIdent(name)} is on the target only, NOT NULL and without a default, so no row can be inserted`,
          `${alter} ALTER COLUMN ${quoteIdent(name)} DROP NOT NULL`,
        ),
      );
  }
  for (const column of source.columns) {
    const other = right.get(column.name);
    if (other === undefined) continue;
    const name = quoteIdent(column.name);
    const change = `${alter} ALTER COLUMN ${name}`;
    if (column.comparable !== other.comparable)
      said.push(
        say(
          `column ${name} is ${column.type} on the source and ${other.type} on the target`,
          `${change} TYPE ${column.type}`,
        ),
      );
    if (column.notNull !== other.notNull)
      said.push(
        column.notNull
          ? say(`column ${name} is NOT NULL on the source only`, `${change} SET NOT NULL`)
          : say(`column ${name} is NOT NULL on the target only`, `${change} DROP NOT NULL`),
      );
    if ((column.generated === '') !== (other.generated === ''))
      said.push(`${table}: column ${name} is generated on the ${column.generated === '' ? 'target' : 'source'} only.`);
    if (column.identity !== other.identity)
      said.push(
        say(
          `column ${name} is ${identityWords(column)} on the source and ${identityWords(other)} on the target`,
          identityChange(change, column, other),
        ),
      );
  }
  if (source.rowIdentity !== target.rowIdentity)
    said.push(
      `${table}: rows are told apart by ${identity(source)} on the source and by ${identity(target)} on the target; make the ` +
        'primary key and the replica identity of the target those of the source.',
    );
  if (source.partitionOf !== target.partitionOf)
    said.push(
      `${table}: it is ${partition(source)} on the source and ${partition(target)} on the target; attach or detach it on the target too.`,
    );
  return said;
}

/** As ADD COLUMN wants it. */
function declare({ name, type, notNull, generated, identity, default: expression }: Column): string {
  const value =
    generated !== ''
      ? ` GENERATED ALWAYS AS (${expression ?? ''})${generated === 's' ? ' STORED' : ''}`
      : identity !== ''
        ? ` GENERATED ${identity === 'a' ? 'ALWAYS' : 'BY DEFAULT'} AS IDENTITY`
        : expression === null
          ? ''
          : ` DEFAULT ${expression}`;
  // Without a default, rows that are there have none to be: then it is set when they have theirs.
  return `${quoteIdent(name)} ${type}${value}${notNull && value !== '' ? ' NOT NULL' : ''}`;
}

const identityWords = ({ identity }: Column): string =>
  identity === '' ? 'no identity column' : `GENERATED ${identity === 'a' ? 'ALWAYS' : 'BY DEFAULT'} AS IDENTITY`;

function identityChange(change: string, wanted: Column, there: Column): string {
  if (wanted.identity === '') return `${change} DROP IDENTITY`;
  const kind = wanted.identity === 'a' ? 'ALWAYS' : 'BY DEFAULT';
  return there.identity === '' ? `${change} ADD GENERATED ${kind} AS IDENTITY` : `${change} SET GENERATED ${kind}`;
}

const identity = ({ rowIdentity }: TableDefinition): string =>
  rowIdentity === null ? 'nothing' : rowIdentity === 'FULL' ? 'all columns' : rowIdentity;

const partition = ({ partitionOf }: TableDefinition): string =>
  partitionOf === null ? 'no partition' : `a partition of ${partitionOf}`;
