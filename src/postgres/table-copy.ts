import type { Copy } from './copy-stream.ts';
import { quoteIdent, quoteName } from './identifier.ts';
import type { CopyUnit } from './unit.ts';

/** The two COPY commands of a unit. */
export function copyOf(unit: CopyUnit): Copy {
  const columns = unit.columns.map(quoteIdent).join(', ');
  // A table without columns has no list; those that it may have are generated, and COPY leaves them out by itself.
  const list = columns === '' ? '' : ` (${columns})`;
  const from = quoteName(unit.schema, unit.name);
  const filter = filterOf(unit);
  const what = filter === null ? `${from}${list}` : `(SELECT ${columns} FROM ONLY ${from} ${filter})`;
  const into = quoteName(unit.targetSchema, unit.targetName);
  const fresh = isFresh(unit);
  return {
    label: unit.label,
    out: `COPY ${what} TO STDOUT (FORMAT ${unit.format})`,
    into: `${fresh ? `TRUNCATE ONLY ${into}; ` : ''}COPY ${into}${list} FROM STDIN (FORMAT ${unit.format}${fresh ? ', FREEZE' : ''})`,
  };
}

/** Which rows; null: all. */
function filterOf({ condition, rangeCondition, firstPage, endPage }: CopyUnit): string | null {
  if (condition !== null) return condition;
  if (rangeCondition !== null) return `WHERE ${rangeCondition}`;
  if (firstPage === null) return null;
  const end = endPage === null ? '' : ` AND ctid < '(${endPage},0)'`;
  return `WHERE ctid >= '(${firstPage},0)'${end}`;
}

/**
 * Whether this unit is all that the table will hold, so that it may be emptied first and its rows frozen. Not so for a
 * range, for what CREATE EXTENSION filled, and for a parent that takes the rows of several partitions. Tiny
 * tables are left as the schema made them, empty: a new file for each would cost more than the rows.
 */
const isFresh = (unit: CopyUnit): boolean =>
  !unit.tiny &&
  unit.firstPage === null &&
  unit.keyRange === null &&
  unit.condition === null &&
  unit.schema === unit.targetSchema &&
  unit.name === unit.targetName;
