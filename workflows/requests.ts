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

const STOP_FIELDS: Record<
  Exclude<keyof StopRequest, 'databases'>,
  [test: (value: unknown) => boolean, what: string]
> = {
  reason: [isText, 'a text'],
  fence: [isFence, `one of ${FENCES.join(', ')}`],
  deadlineSeconds: [isDeadline, 'a whole number from 1 to 86400'],
  notBefore: [isMoment, 'a time with its offset from UTC, e.g. "2030-01-31T02:00:00Z"'],
  together: [isFlag, 'true or false'],
};

/** What is wrong with a stop request, as a sentence; null when nothing is. */
export function stopRequestProblem(request: unknown, known: readonly string[] | null): string | null {
  if (request === undefined || request === null) return null;
  if (!isRecord(request))
    return 'stopReplication takes one JSON object, e.g. {"databases": ["shop"], "reason": "cutover"}.';
  const { databases, ...rest } = request;
  for (const [name, value] of Object.entries(rest)) {
    const field = STOP_FIELDS[name as keyof typeof STOP_FIELDS] as (typeof STOP_FIELDS)['reason'] | undefined;
    if (field === undefined) return `stopReplication has no field "${name}".`;
    const [test, what] = field;
    if (value !== undefined && !test(value)) return `The field "${name}" of stopReplication must be ${what}.`;
  }
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

/** Two requests ask for the databases of either; of the rest the later one has the last word. */
export function mergeStops(before: StopRequest | null, request: StopRequest): StopRequest {
  if (before === null) return request;
  const { databases, notBefore, ...rest } = { ...before, ...request };
  const all = before.databases === undefined || request.databases === undefined;
  return {
    ...rest,
    ...(all || databases === undefined ? {} : { databases: [...new Set([...(before.databases ?? []), ...databases])] }),
    // Who says nothing of a time means now.
    ...(request.notBefore === undefined || notBefore === undefined ? {} : { notBefore }),
  };
}

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
