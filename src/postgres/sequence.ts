import { LEDGER_SCHEMA } from '../contract.ts';
import { MigrationError } from '../domain/failure.ts';
import { LIMITS } from '../domain/limits.ts';
import type { Session } from './connection.ts';
import { displayName, quoteName } from './identifier.ts';

export interface SequenceState {
  schema: string;
  name: string;
  lastValue: bigint;
  isCalled: boolean;
  /** Negative: it counts down. */
  increment: bigint;
  cycles: boolean;
}

export interface Listed {
  schema: string;
  name: string;
  increment: string;
  cycles: boolean;
}

/** Of one SELECT; more would only make the statement longer. */
export const SEQUENCES_PER_QUERY = 200;

/** Every sequence of the user, identity columns' too, as the session's snapshot sees the catalog. */
export const listSequences = (session: Session): Promise<Listed[]> =>
  session.query<Listed>(
    `SELECT n.nspname AS schema, c.relname AS name, s.seqincrement::text AS increment, s.seqcycle AS cycles
       FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', $1)
        AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
      ORDER BY 1, 2`,
    [LEDGER_SCHEMA],
  );

/** At most `SEQUENCES_PER_QUERY`; `n` is the place in the list. */
export const readValues = (
  session: Session,
  sequences: readonly { schema: string; name: string }[],
): Promise<{ n: number; value: string; called: boolean }[]> =>
  session.query(
    sequences
      .map(
        ({ schema, name }, n) =>
          `SELECT ${n} AS n, last_value::text AS value, is_called AS called FROM ${quoteName(schema, name)}`,
      )
      .join(' UNION ALL '),
  );

/** As they stand now: sequences know no snapshots. */
export async function readSequences(session: Session): Promise<SequenceState[]> {
  const listed = await listSequences(session);
  const states: SequenceState[] = [];
  for (let first = 0; first < listed.length; first += SEQUENCES_PER_QUERY) {
    const batch = listed.slice(first, first + SEQUENCES_PER_QUERY);
    for (const { n, value, called } of await readValues(session, batch)) {
      const sequence = batch[n];
      if (sequence === undefined) continue;
      const { schema, name, increment, cycles } = sequence;
      states.push({ schema, name, lastValue: BigInt(value), isCalled: called, increment: BigInt(increment), cycles });
    }
  }
  return states;
}

/** Those of them that the target lacks. */
export async function missingSequences(target: Session, states: readonly SequenceState[]): Promise<SequenceState[]> {
  const rows = await target.query<{ n: number }>(
    `SELECT n::int AS n FROM unnest($1::text[]) WITH ORDINALITY AS s (name, n) WHERE to_regclass(s.name) IS NULL ORDER BY n`,
    [states.map(({ schema, name }) => quoteName(schema, name))],
  );
  return rows.flatMap(({ n }) => states[n - 1] ?? []);
}

/** @throws MigrationError `SchemaFailed` naming the sequences that the target lacks */
export async function setSequences(target: Session, states: readonly SequenceState[]): Promise<void> {
  if (states.length === 0) return;
  const names = states.map(({ schema, name }) => quoteName(schema, name));
  const missing = await missingSequences(target, states);
  if (missing.length > 0) {
    const shown = missing.slice(0, LIMITS.namesInMessage);
    const list = shown.map(({ schema, name }) => displayName(schema, name));
    throw new MigrationError(
      'SchemaFailed',
      `The target has no sequence ${list.join(', ')}${missing.length > shown.length ? ' and more' : ''}.`,
      {
        object: list[0] ?? null,
      },
    );
  }
  await target.query(
    `SELECT setval(s.name::regclass, s.value::bigint, s.called) FROM unnest($1::text[], $2::text[], $3::bool[]) AS s (name, value, called)`,
    [names, states.map(({ lastValue }) => lastValue.toString()), states.map(({ isCalled }) => isCalled)],
  );
}

/** The source's state, unless the target's is further on its way: a value once given must never be given again. */
export function furthest(source: SequenceState, target: SequenceState | undefined): SequenceState {
  if (target === undefined || source.cycles) return source;
  const distance = (target.lastValue - source.lastValue) * (source.increment < 0n ? -1n : 1n);
  if (distance > 0n) return { ...source, lastValue: target.lastValue, isCalled: target.isCalled };
  return distance === 0n ? { ...source, isCalled: source.isCalled || target.isCalled } : source;
}
