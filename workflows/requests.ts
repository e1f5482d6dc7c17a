import type { StopRequest, Word } from '../src/contract.ts';
import type { Plan } from '../src/domain/plan.ts';
import { FENCES } from '../src/domain/plan.ts';

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const isText = (value: unknown): boolean => typeof value === 'string';
const isFlag = (value: unknown): boolean => typeof value === 'boolean';
const isFence = (value: unknown): boolean => FENCES.some((fence) => fence === value);
const isDeadline = (value: unknown): boolean =>
  typeof value === 'number' && Number.isInteger(value) && value >= 1 && value <= 86_400;
/** Without an offset it would mean another moment to everybody. */
const isMoment = (value: unknown): boolean =>
  typeof value === 'string' && /(Z|[+-]\d\d:?\d\d)$/.test(value) && !Number.isNaN(Date.parse(value));

const STOP_FIELDS = {
  reason: [isText, 'a text'],
  fence: [isFence, `one of ${FENCES.join(', ')}`],
  deadlineSeconds: [isDeadline, 'a whole number from 1 to 86400'],
  notBefore: [isMoment, 'a time with its offset from UTC, e.g. "2030-01-31T02:00:00Z"'],
  together: [isFlag, 'true or false'],
} as const satisfies Record<Exclude<keyof StopRequest, 'databases'>, Fields[string]>;

type Fields = Readonly<Record<string, readonly [test: (value: unknown) => boolean, what: string]>>;

function problemOf(message: string, request: unknown, fields: Fields): string | null {
  if (request === undefined || request === null) return null;
  if (!isRecord(request)) return `${message} takes one JSON object, or nothing.`;
  for (const [name, value] of Object.entries(request)) {
    const field = fields[name];
    if (field === undefined) return `${message} has no field "${name}".`;
    const [test, what] = field;
    if (value !== undefined && !test(value)) return `The field "${name}" of ${message} must be ${what}.`;
  }
  return null;
}

/** What is wrong with a stop request, as a sentence; null when nothing is. */
export function stopRequestProblem(request: unknown, known: readonly string[] | null): string | null {
  if (request === undefined || request === null) return null;
  if (!isRecord(request))
    return 'stopReplication takes one JSON object, e.g. {"databases": ["shop"], "reason": "cutover"}.';
  const { databases, ...rest } = request;
  const problem = problemOf('stopReplication', rest, STOP_FIELDS);
  if (problem !== null) return problem;
  if (databases === undefined) return null;
  if (!Array.isArray(databases) || !databases.every((name) => typeof name === 'string'))
    return 'The field "databases" of stopReplication must be a list of names.';
  const stranger = known === null ? undefined : databases.find((name) => !known.includes(name));
  return stranger === undefined ? null : `This migration has no database "${stranger}".`;
}

/** … and what the plan has not for it. */
export const fenceProblem = (plan: Plan, { fence }: StopRequest): string | null =>
  fence === 'pgbouncer' && plan.stop.pgbouncer === null
    ? 'The fence "pgbouncer" needs "stop.pgbouncer" in the plan of this migration, which has none.'
    : null;

export function resolveRequestProblem(request: unknown): string | null {
  const usage = 'resolve takes {"action": "retry", "skip" or "abort", "database": optional}.';
  if (!isRecord(request)) return usage;
  const { action, database } = request;
  if (action !== 'retry' && action !== 'skip' && action !== 'abort') return usage;
  return database !== undefined && typeof database !== 'string' ? usage : null;
}

export function wordProblem(name: 'fenced' | 'switched', word: unknown): string | null {
  const usage = `${name} takes {"by": "who did it", "database": optional}.`;
  if (!isRecord(word)) return usage;
  const { by, database, ...rest } = word as Partial<Record<keyof Word, unknown>>;
  if (typeof by !== 'string' || by.trim() === '' || Object.keys(rest).length > 0) return usage;
  return database !== undefined && typeof database !== 'string' ? usage : null;
}

/** … `null` or nothing is the same as `{}`. */
export const rollbackProblem = (request: unknown): string | null =>
  problemOf('rollback', request, {
    database: [isText, 'a text'],
    reason: [isText, 'a text'],
    deadlineSeconds: STOP_FIELDS.deadlineSeconds,
  });

export const completeProblem = (request: unknown): string | null =>
  problemOf('complete', request, { database: [isText, 'a text'], reason: [isText, 'a text'] });
