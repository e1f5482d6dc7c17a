import { compareDatabases } from '../../demo/compare.ts';
import type { PostgresAccess } from '../../lab/postgres-access.ts';
import { leftovers } from '../support/live-migration.ts';
import { readState } from '../support/everything-state.ts';
import type { Bank } from './bank.ts';
import type { RunPlan } from './plan.ts';
import type { Ending } from './run.ts';
import type { Happened } from './scene.ts';
import { isBeforeAnyChange, phaseOf } from './steps.ts';
import { until, type World } from './world.ts';

interface Case {
  plan: RunPlan;
  database: string;
  ending: Ending;
  events: readonly Happened[];
  bank: Bank;
}

/** A backend that was told to end may need a moment. */
const LEFTOVERS_MS = 15_000;
const WRITES_MS = 10_000;

/** Everything that must not be after the end of a run, a sentence each. */
export async function judge(world: World, it: Case): Promise<string[]> {
  const { ending } = it;
  if (ending.how === 'hung') return ['It did not come to an end.'];
  return [
    ...judgeWords(it),
    ...judgeNeed(it),
    ...(ending.how === 'done' ? await judgeDone(world, it) : await judgeUndone(world, it)),
    ...(await judgeLeftovers(world, it.database)),
  ];
}

/** Whatever it says is a sentence, which tells a person what happened. */
function judgeWords({ ending, plan }: Case): string[] {
  const said = [...ending.parked, ...(ending.how === 'failed' ? [ending.message] : [])];
  return said
    .filter((text) => text.length < 30 || NO_SENTENCE.test(text))
    .map((text) => `Seed ${plan.seed} said what is no sentence for a person: ${text}`);
}

const NO_SENTENCE =
  /\bundefined\b|\bnull\b|\[object|\bat \S+\.js:\d+|TypeError|is not a function|Cannot read prop|expected one row|[^.)!?"]$/;

/** A person is asked only when something struck that needs one. */
function judgeNeed({ ending, events, plan }: Case): string[] {
  const struck = events.filter(({ struckAt }) => struckAt !== null);
  const mild = struck.every(({ kind, step }) => kind.mild && !isBeforeAnyChange(step));
  if (!mild || plan.method === 'dump') return [];
  const needs = ending.how !== 'done' ? [`It ended as ${ending.how}: ${ending.message}`] : [];
  return [...needs, ...ending.parked].map((text) => `Nothing struck that needs a person, but: ${text}`);
}

async function judgeDone({ source, target }: World, it: Case): Promise<string[]> {
  const { database, ending, bank, plan } = it;
  await bank.stop();
  const status = ending.report?.databases[0]?.status ?? 'none';
  const expected = plan.after === 'rollback' ? 'rolled-back' : 'done';
  if (status !== expected) return [`It ended as ${status} instead of ${expected}.`];
  const serving = plan.after === 'rollback' ? source.server : target.server;
  if (plan.after === 'complete') return [...(await bank.audit(serving)), ...(await takesWrites(serving, database))];
  const compared = await compareDatabases(database, source.server.uri(database), target.server.uri(database));
  const jumped = await jumpedSequences(source.server, it);
  const differences = compared.differences.filter((text) => !jumped.some((name) => text.startsWith(`${name}:`)));
  const problems = [...differences, ...(await bank.audit(source.server)), ...(await bank.audit(target.server))];
  const after = ending.report?.databases[0]?.walAfterMarkBytes ?? null;
  if (plan.method === 'replication' && after !== 0)
    problems.push(`The fence was up, and ${after ?? 'no'} bytes of WAL came after the mark.`);
  problems.push(...(await takesWrites(serving, database)));
  // Of a source that was gone back to, only the rows are what the target has.
  if (plan.after === 'rollback') return problems;
  const [left, right] = [
    await readState(target.server, source.server, database),
    await readState(target.server, target.server, database),
  ];
  for (const part of ['schema', 'rest'] as const) {
    const [ours, theirs] = [new Set(left[part]), new Set(right[part])];
    for (const line of ours) if (!theirs.has(line)) problems.push(`Only on the source: ${line}`);
    for (const line of theirs) if (!ours.has(line)) problems.push(`Only on the target: ${line}`);
  }
  return problems;
}

async function takesWrites(server: PostgresAccess, database: string): Promise<string[]> {
  const answer = await server.psql(database, `INSERT INTO keyless VALUES (97, 'probe')`).catch(String);
  return answer === '' ? [] : [`It takes no writes: ${answer}`];
}

/** A server that crashes goes on with a sequence up to 32 values further; after the cutover that is its own business. */
async function jumpedSequences(source: World['source']['server'], { database, events, plan }: Case): Promise<string[]> {
  const kinds = ['crash source', ...(plan.after === 'rollback' ? ['crash target'] : [])];
  const crashed = events.some(
    ({ kind, step, struckAt }) =>
      kinds.includes(kind.name) &&
      struckAt !== null &&
      ['stopping', 'finishing', 'rolling-back'].includes(phaseOf(step)),
  );
  if (!crashed) return [];
  const names = await source.psql(
    database,
    `SELECT format('"%s"."%s"', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'S'`,
  );
  return names.split('\n');
}

/** The source goes on as if nothing had been; or, when it ended after the cutover, the target does, and only that. */
async function judgeUndone(
  { source, target }: World,
  { database, ending, events, bank, plan }: Case,
): Promise<string[]> {
  const problems: string[] = [];
  const isCancelled = events.some(({ kind, struckAt }) => kind.name === 'cancel' && struckAt !== null);
  if (ending.how === 'cancelled' && !isCancelled && ending.parked.length === 0)
    problems.push('It was cancelled, and nobody had asked for it.');
  const refused = await takesWrites(source.server, database);
  if (ending.said.includes('The target serves')) {
    if (refused.length === 0) problems.push('The target serves, and the source takes writes too.');
    const neither = await takesWrites(target.server, database);
    bank.lead(target.server);
    await bank.stop();
    return [...problems, ...neither, ...(await bank.audit(target.server))];
  }
  problems.push(...refused);
  // It may have been led to the target.
  bank.lead(source.server);
  const before = bank.committed();
  if (plan.method === 'replication' && !(await until(() => bank.committed() > before, WRITES_MS)))
    problems.push('The writers on the source do not come any further.');
  return problems;
}

async function judgeLeftovers({ source, target }: World, database: string): Promise<string[]> {
  let found: string[] = [];
  await until(
    async () => {
      found = await leftovers(source.server, target.server, [database]);
      return found.length === 0;
    },
    LEFTOVERS_MS,
    500,
  );
  return found.map((left) => `Left behind: ${left}`);
}

/** The one word of a run for its line and for the table. */
export function outcomeOf(ending: Ending): string {
  const { how, parked, message } = ending;
  if (how === 'done')
    return parked.length === 0 ? 'equal' : `equal, after ${parked.length} answers to: ${short(parked)}`;
  if (how === 'hung') return 'HUNG';
  return parked.length === 0 ? `${how}: ${short([message])}` : `parked and ${how}: ${short(parked)}`;
}

const short = (texts: readonly string[]): string => (texts.at(-1) ?? '').replaceAll(/\s+/g, ' ').slice(0, 220);
