import * as v from 'valibot';
import { MigrationError } from './failure.ts';

const names = v.optional(v.array(v.string()), []);
const count = (least: number, most: number) => v.pipe(v.number(), v.integer(), v.minValue(least), v.maxValue(most));
const scope = v.optional(v.strictObject({ include: names, exclude: names }), {});

/**
 * What keeps writers out of the source while a stop drains. `read-only` and `lock-out` are done on the server, `pgbouncer`
 * in front of it, `external` by somebody who says so with the update `fenced`.
 */
export const FENCES = ['none', 'read-only', 'lock-out', 'pgbouncer', 'external'] as const;
export type Fence = (typeof FENCES)[number];
/** Those that pgtransit puts up, and lifts, itself. */
export type FenceOfOurs = Exclude<Fence, 'none' | 'external'>;

/** Then whoever wrote before it has told the server's counters. */
export const endsSessions = (fence: Fence): boolean => fence === 'read-only' || fence === 'lock-out';

/** Every field has a default: `{}` is a complete plan. */
const PlanSchema = v.strictObject({
  /** Connection references: `env:NAME`, `service:NAME`, or a URI without a password. */
  source: v.optional(v.string(), 'env:SOURCE_SERVICE_URI'),
  target: v.optional(v.string(), 'env:TARGET_SERVICE_URI'),
  /** How the target server reaches the source, when that differs from how the worker does. */
  sourceForTarget: v.optional(v.nullable(v.string()), null),
  databases: scope,
  tables: scope,
  roles: v.optional(
    v.strictObject({ exclude: names, passwords: v.optional(v.picklist(['copy', 'placeholder']), 'copy') }),
    {},
  ),
  extensions: v.optional(v.strictObject({ exclude: names, tables: v.optional(v.boolean(), true) }), {}),
  method: v.optional(v.picklist(['auto', 'replication', 'dump', 'schema-only']), 'auto'),
  createDatabases: v.optional(v.boolean(), true),
  /** Whether objects on the target belong to whom they belong on the source; else to the migrating role. */
  owners: v.optional(v.boolean(), true),
  /** Whether grants and default privileges come along. */
  privileges: v.optional(v.boolean(), true),
  /** Bytes; null: no limit. */
  maxTotalBytes: v.optional(v.nullable(count(0, Number.MAX_SAFE_INTEGER)), null),
  allowOlderTarget: v.optional(v.boolean(), false),
  stop: v.optional(
    v.strictObject({
      when: v.optional(v.picklist(['signal', 'caught-up']), 'signal'),
      maxLagBytes: v.optional(count(0, Number.MAX_SAFE_INTEGER), 0),
      fence: v.optional(v.picklist(FENCES), 'none'),
      /** The admin console of the PgBouncer in front of the source, for the fence `pgbouncer`: a connection reference. */
      pgbouncer: v.optional(v.nullable(v.string()), null),
      /** Whether the end waits for the update `switched`, by which somebody says that the clients are led to the target. */
      awaitSwitch: v.optional(v.boolean(), false),
      /** How long a fence may keep writers out before the cutover is put back. */
      deadlineSeconds: v.optional(count(1, 86_400), 60),
    }),
    {},
  ),
  /** After the cutover the source follows the target until the update `complete`, or `rollback` goes back to it. */
  reverse: v.optional(
    v.union([
      v.literal(false),
      v.strictObject({
        /** Until somebody is reminded that it goes on. */
        days: v.optional(count(1, 365), 7),
        /** How the source server reaches the target, when that differs from how the worker does. */
        targetForSource: v.optional(v.nullable(v.string()), null),
      }),
    ]),
    false,
  ),
  /**
   * How far one snapshot may hold back vacuum on the source; then the next one goes on with what is not finished. For
   * replication: a dump must be of one snapshot. null: no limit, and no table in ranges.
   */
  snapshot: v.optional(
    v.strictObject({
      maxSeconds: v.optional(v.nullable(count(60, Number.MAX_SAFE_INTEGER)), null),
      /** Transaction ids that are assigned while it is open. */
      maxXidAge: v.optional(v.nullable(count(1, 2_000_000_000)), null),
      /** Dead rows in the database that come while it is open, which vacuum cannot remove. */
      maxDeadTuples: v.optional(v.nullable(count(1, Number.MAX_SAFE_INTEGER)), null),
      /** Tables above so many bytes are cut into ranges of their key, so that what is finished of them stays too. */
      rangeBytes: v.optional(v.nullable(count(1, Number.MAX_SAFE_INTEGER)), null),
    }),
    {},
  ),
  /** WAL that a slot keeps on the source, in bytes: when to say so, and when to undo everything. null: never. */
  retainedWal: v.optional(
    v.strictObject({
      warnBytes: v.optional(v.nullable(count(0, Number.MAX_SAFE_INTEGER)), 10_000_000_000),
      maxBytes: v.optional(v.nullable(count(1, Number.MAX_SAFE_INTEGER)), null),
    }),
    {},
  ),
  onError: v.optional(v.picklist(['park', 'fail']), 'park'),
  verify: v.optional(v.picklist(['none', 'copied', 'full']), 'copied'),
  parallelism: v.optional(
    v.strictObject({
      /** Databases being copied at once; a database's permit ends when it streams. */
      databases: v.optional(count(1, 64), 2),
      /** Copy lanes a database. */
      copy: v.optional(count(1, 64), 4),
      /** Index lanes a database. */
      index: v.optional(count(1, 64), 2),
    }),
    {},
  ),
});

export type Plan = v.InferOutput<typeof PlanSchema>;
export type Method = Exclude<Plan['method'], 'auto'>;

/**
 * Reads what somebody gave to `temporal workflow start --input`; nothing is the same as `{}`.
 * @throws MigrationError `InvalidPlan`, with one sentence for each thing that is wrong.
 */
export function parsePlan(input: unknown): Plan {
  if (Array.isArray(input))
    throw new MigrationError('InvalidPlan', 'The input must be one JSON object, but it is a list.');
  const result = v.safeParse(PlanSchema, input ?? {});
  const problems = result.success ? contradictions(result.output) : result.issues.map(sentence);
  if (!result.success || problems.length > 0) throw new MigrationError('InvalidPlan', problems.join(' '));
  return result.output;
}

function sentence(issue: v.BaseIssue<unknown>): string {
  const path = v.getDotPath(issue) ?? '';
  if (path === '') return `The input must be one JSON object, but it is ${issue.received}.`;
  if (issue.type === 'strict_object' && issue.expected === 'never') return `The plan has no field "${path}".`;
  const expected = issue.expected ?? 'something else';
  return `The plan's field "${path}" must be ${expected}, but it is ${issue.received}.`;
}

function contradictions(plan: Plan): string[] {
  const problems: string[] = [];
  for (const field of ['source', 'target', 'sourceForTarget'] as const) {
    const reference = plan[field];
    if (reference !== null) problems.push(...referenceProblems(field, reference));
  }
  if (plan.reverse !== false) {
    const { targetForSource } = plan.reverse;
    if (targetForSource !== null) problems.push(...referenceProblems('reverse.targetForSource', targetForSource));
    if (plan.method === 'dump' || plan.method === 'schema-only')
      problems.push(`"reverse" belongs to the end of a replication, and "method": "${plan.method}" rules that out.`);
  }
  const { fence, pgbouncer } = plan.stop;
  if (pgbouncer !== null) problems.push(...referenceProblems('stop.pgbouncer', pgbouncer));
  if (fence === 'pgbouncer' && pgbouncer === null)
    problems.push('"stop.fence": "pgbouncer" needs "stop.pgbouncer": how the worker reaches its admin console.');
  if (
    plan.databases.include.length > 0 &&
    plan.databases.include.every((name) => plan.databases.exclude.includes(name))
  )
    problems.push('"databases.exclude" names every database of "databases.include", so nothing would be migrated.');
  if (plan.method === 'dump' && Object.values(plan.snapshot).some((limit) => limit !== null))
    problems.push('"snapshot" is for replication only: a dump must be of one snapshot.');
  return problems;
}

const REFERENCE = /^(env:[A-Za-z_][A-Za-z0-9_]*|service:[^\s]+|local:[A-Za-z0-9_-]+)$/;

function referenceProblems(field: string, reference: string): string[] {
  if (REFERENCE.test(reference)) return [];
  const isUri = /^postgres(ql)?:\/\//.test(reference);
  // The text itself is not repeated: it may hold the password that should not be here.
  if (!isUri && !reference.includes('='))
    return [`The plan's field "${field}" must be env:NAME, service:NAME or a postgres:// URI without a password.`];
  const authority = reference.replace(/^[a-z]+:\/\//, '').split(/[/?]/)[0] ?? '';
  const userinfo = authority.includes('@') ? authority.slice(0, authority.lastIndexOf('@')) : '';
  const hasPassword = (isUri && userinfo.includes(':')) || /(^|[\s?&])(password|sslpassword)\s*=/i.test(reference);
  if (!hasPassword) return [];
  return [
    `The plan's field "${field}" holds a password, and everybody who reads this history would see it. ` +
      'Put the URI into an environment variable of the worker and refer to it as env:NAME.',
  ];
}
