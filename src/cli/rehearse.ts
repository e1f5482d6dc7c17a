import type { Command } from 'commander';
import { childWorkflowId, MESSAGE } from '../contract.ts';
import type { ClusterProgress } from '../domain/progress.ts';
import type { Rehearsal } from '../domain/readiness.ts';
import type { Secrets } from '../temporal/secrets.ts';
import type { TemporalSession } from '../temporal/session.ts';
import { INTERRUPTED } from './answer.ts';
import type { OrderFlags } from './carry-out.ts';
import { HOW, orderOptions, selectOpen, UNSERVED, whileServed } from './carry-out.ts';
import { print, sessionCommand, withTemporal } from './command-session.ts';
import { collect, splitNames } from './name-list.ts';
import { plain, table } from './view/text.ts';

const HELP = `
Does what \`pgtransit stop\` does, but for the fence and for whatever it changes: nobody is kept out. Reckon with twice the
time that it says.

Example:
  pgtransit rehearse pgtransit-0123456789ab --databases shop`;

interface RehearseFlags extends OrderFlags {
  databases?: string[];
}

type Rehearsals = [database: string, Rehearsal][];

export const rehearseCommand = (secrets: Secrets): Command =>
  orderOptions(sessionCommand('rehearse', 'see how long a cutover would keep writers out, and for what'))
    .option('--databases <names>', 'only these, separated by commas', collect(splitNames, '--databases'))
    .addHelpText('after', HELP)
    .action((id: string | undefined, flags: RehearseFlags) =>
      withTemporal(flags, secrets, async (session, log) => {
        const migration = await selectOpen(session, id);
        const rehearse = () => rehearseAll(session, migration.id, flags.databases);
        const rehearsed = await whileServed({ session, migration, flags, secrets, log }, rehearse);
        if (rehearsed === 'interrupted') return INTERRUPTED;
        if (rehearsed === 'unserved') throw new Error(`${UNSERVED}. ${HOW}`);
        print(flags, rehearsed.map(render).join('\n\n'), Object.fromEntries(rehearsed));
        return 0;
      }),
    );

/** One after the other: each would slow the others down. */
async function rehearseAll(
  { client }: TemporalSession,
  id: string,
  wanted: readonly string[] | undefined,
): Promise<Rehearsals> {
  const { databases } = await client.workflow.getHandle(id).query<ClusterProgress>(MESSAGE.progress);
  const unknown = wanted?.find((name) => databases.every(({ database }) => database !== name));
  if (unknown !== undefined) throw new Error(`This migration has no database "${unknown}".`);
  const rehearsed: Rehearsals = [];
  for (const { database, phase } of databases) {
    // Who names one is told why it cannot be rehearsed.
    if (wanted === undefined ? phase !== 'streaming' : !wanted.includes(database)) continue;
    const handle = client.workflow.getHandle(childWorkflowId(id, database));
    rehearsed.push([database, await handle.executeUpdate<Rehearsal, []>(MESSAGE.rehearse)]);
  }
  if (rehearsed.length === 0)
    throw new Error('No database streams: there is nothing to rehearse. `pgtransit status` says how far they are.');
  return rehearsed;
}

function render([database, { steps, expectedDowntimeMs }]: [string, Rehearsal]): string {
  const rows = steps.map(({ name, ms, estimated }) => [name, `${Math.round(ms)} ms`, estimated ? 'estimated' : '']);
  const time = (expectedDowntimeMs / 1000).toFixed(1);
  return `${plain(database)}: writers would be kept out for about ${time} s\n${table(['STEP', 'TIME', ''], rows, ['TIME'])}`;
}
