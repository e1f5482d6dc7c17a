import { formatBytes } from './format.ts';

/** Whether one thing that a cutover needs is there. `unknown` is never as good as `ok`: somebody has to look. */
export interface Condition {
  /** Stable, kebab-case. */
  name: string;
  state: 'ok' | 'problem' | 'unknown';
  detail: string;
  /** What to do: SQL, or a sentence. Null: nothing. */
  next: string | null;
}

export type Verdict = Omit<Condition, 'name'>;

/** Where both servers were at one moment; two of them make rates. */
export interface StreamSample {
  /** ms of the worker's clock. */
  atMs: number;
  /** Bytes of WAL that the source has flushed, and that the slowest slot has confirmed. */
  flushed: number;
  confirmed: number;
  /** Since the subscription was made; null before 15, where the server does not count them. */
  applyErrors: number | null;
}

/** Characters of one detail or remedy: all conditions of a thousand databases must fit into a page and a payload. */
const MOST_CHARACTERS = 600;

const cut = (text: string): string =>
  text.length <= MOST_CHARACTERS ? text : `${text.slice(0, MOST_CHARACTERS - 1)}…`;

export const ok = (detail: string): Verdict => ({ state: 'ok', detail: cut(detail), next: null });
export const problem = (detail: string, next: string | null = null): Verdict => ({
  state: 'problem',
  detail: cut(detail),
  next: next === null ? null : cut(next),
});
export const unknown = (detail: string, next: string | null = null): Verdict => ({
  ...problem(detail, next),
  state: 'unknown',
});

/** Does the target apply faster than the source writes, and when is it there? `allowedBytes`: behind by that is there. */
export function judgeRate(before: StreamSample, now: StreamSample, allowedBytes: number): Verdict {
  const seconds = (now.atMs - before.atMs) / 1000;
  if (seconds <= 0 || now.flushed < before.flushed)
    return unknown('The two samples do not follow each other: one of the servers or clocks was changed.');
  const written = (now.flushed - before.flushed) / seconds;
  const applied = Math.max(0, (now.confirmed - before.confirmed) / seconds);
  const behind = Math.max(0, now.flushed - now.confirmed);
  const rates = `the source writes ${formatBytes(Math.round(written))} of WAL a second, the target applies ${formatBytes(Math.round(applied))}`;
  // What a second brings is on its way: nobody is ever less behind than that while somebody writes.
  if (behind <= allowedBytes + written) return ok(`Caught up, ${formatBytes(behind)} behind: ${rates}.`);
  if (applied > written)
    return problem(
      `${formatBytes(behind)} behind, caught up in about ${formatDuration(behind / (applied - written))} at this rate: ${rates}.`,
      'Wait.',
    );
  return problem(
    `${formatBytes(behind)} behind, and it will never catch up at this rate: ${rates}.`,
    'Write less on the source, or look for what holds the apply worker on the target: locks, missing indexes, a slow disk.',
  );
}

export function formatDuration(seconds: number): string {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 90 * 60) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

export const isOk = ({ state }: Condition): boolean => state === 'ok';

/** What needs a person first. */
const ORDER = { problem: 0, unknown: 1, ok: 2 } as const;
const sorted = (conditions: readonly Condition[]): Condition[] =>
  [...conditions].sort((a, b) => ORDER[a.state] - ORDER[b.state]);

/** Inert in Markdown and in a table's cell: names in it come from outside. */
const cell = (text: string): string => text.replace(/[\\`*_{}[\]<>|#]/g, '\\$&').replace(/\s+/g, ' ');

/** For Temporal's current details; the Web UI draws tables without space between columns, and trims ordinary spaces. */
export function readinessTable(conditions: readonly Condition[]): string {
  const row = (cells: readonly string[]): string => `| ${cells.join('\u00a0\u00a0\u00a0 | ')} |`;
  return [
    row(['Ready to cut over?', '', 'What was seen', 'What to do']),
    '|:--|:--|:--|:--|',
    ...sorted(conditions).map(({ name, state, detail, next }) =>
      row([name, state === 'ok' ? 'ok' : `**${state}**`, cell(detail), cell(next ?? '–')]),
    ),
  ].join('\n');
}

/** For a terminal; names aligned, what to do on a line of its own. */
export function readinessLines(conditions: readonly Condition[]): string[] {
  const width = Math.max(0, ...conditions.map(({ name }) => name.length));
  return sorted(conditions).flatMap(({ name, state, detail, next }) => [
    `${state.padEnd('problem'.length)}  ${name.padEnd(width)}  ${detail.replace(/\s+/g, ' ')}`,
    ...(next === null ? [] : [`${' '.repeat('problem'.length + width + 4)}${next.replace(/\s+/g, ' ')}`]),
  ]);
}

export interface RehearsedStep {
  /** As the step of the cutover is called. */
  name: string;
  ms: number;
  /** Not measured: it cannot be done without changing something. */
  estimated: boolean;
}

export interface Rehearsal {
  steps: RehearsedStep[];
  /** From the fence to the end of the last step; writers are let through until the gate is open. */
  expectedDowntimeMs: number;
}

export const expectedDowntime = (steps: readonly RehearsedStep[]): number =>
  steps.reduce((sum, { name, ms }) => sum + (name === 'waitForGate' ? 0 : ms), 0);
