import { generationName, LEDGER_SCHEMA } from '../src/contract.ts';
import { LIMITS } from '../src/domain/limits.ts';
import type { Migration } from '../src/domain/migration.ts';
import type { Condition, StreamSample } from '../src/domain/readiness.ts';
import { unknown } from '../src/domain/readiness.ts';
import type { Session } from '../src/postgres/connection.ts';
import { bytesOf, confirmedLsn, flushLsn } from '../src/postgres/lag.ts';
import { toMigrationError } from '../src/postgres/sqlstate.ts';
import { readSubscriptions } from '../src/postgres/subscription.ts';
import type { ActivityDeps } from './context.ts';
import { activitySignal, nextPoll, openSource, openTarget } from './context.ts';
import { pgbouncerConsole, sourceForTarget } from './endpoints.ts';
import * as databases from './readiness-databases.ts';
import type { ReadinessCheck, ReadinessContext } from './readiness-check.ts';
import * as stream from './readiness-stream.ts';

/** What a cutover needs, in the order in which people ask for it. */
const CHECKS: readonly ReadinessCheck[] = [
  { name: 'copy-complete', title: 'the copy', server: 'target', run: stream.copyComplete },
  { name: 'streaming', title: 'the streams', server: 'target', run: stream.streaming },
  { name: 'lag', title: 'the lag', server: 'source', run: stream.lag },
  { name: 'apply-rate', title: 'the rates', server: 'target', run: stream.applyRate },
  { name: 'apply-errors', title: 'apply errors', server: 'target', run: stream.applyErrors },
  { name: 'prepared-transactions', title: 'prepared transactions', server: 'source', run: stream.preparedTransactions },
  { name: 'long-transactions', title: 'long transactions', server: 'source', run: stream.longTransactions },
  { name: 'sequences', title: 'the sequences', server: 'source', run: databases.sequences },
  { name: 'constraints', title: 'the constraints', server: 'target', run: databases.constraints },
  { name: 'indexes', title: 'the indexes', server: 'target', run: databases.indexes },
  {
    name: 'materialized-views',
    title: 'the materialized views',
    server: 'target',
    run: databases.materializedViews,
  },
  { name: 'definitions', title: 'the definitions of tables', server: 'target', run: databases.definitions },
  { name: 'unpublished-tables', title: 'new tables', server: 'source', run: databases.unpublishedTables },
  { name: 'connections', title: 'room for connections', server: 'target', run: databases.connections },
  { name: 'extensions', title: 'the extensions', server: 'target', run: databases.extensions },
  { name: 'statistics', title: 'the statistics', server: 'target', run: databases.statistics },
  { name: 'login-roles', title: 'the roles that log in', server: 'target', run: databases.loginRoles },
  {
    name: 'rows',
    title: 'the comparison of rows',
    server: 'target',
    when: ({ verify }) => verify === 'full',
    run: databases.rowsCompared,
  },
  { name: 'fence', title: 'what the fence needs', server: 'source', run: databases.fencePossible },
];

export interface Readiness {
  conditions: Condition[];
  /** For the next look, whose rates are better the longer ago it was. Null: it could not be taken. */
  sample: StreamSample | null;
}

export function createReadinessActivities(deps: ActivityDeps) {
  return {
    /** Changes nothing. A condition that fails or takes too long is `unknown`, and says nothing about the others. */
    async readiness(m: Migration, before: StreamSample | null = null): Promise<Readiness> {
      const [source, target] = await Promise.all([open(deps, m, 'source'), open(deps, m, 'target')]);
      const until = performance.now() + LIMITS.readinessMs;
      let latest: StreamSample | null = null;
      const names = async (): Promise<string[]> => {
        const rows = await target
          .session()
          .query<{ number: number }>(`SELECT number FROM ${LEDGER_SCHEMA}.generation WHERE slot ORDER BY number`);
        return rows.map(({ number }) => generationName(m.id, number));
      };
      const take = async () => takeSample(source.session(), target.session(), await names());
      const samples: ReadinessContext['samples'] = async () => {
        const earlier = before ?? (await take());
        while (Date.now() - earlier.atMs < LIMITS.rateSampleMs) await nextPoll();
        latest ??= await take();
        return { before: earlier, now: latest, ofEarlierLook: before !== null };
      };
      let taken: ReturnType<typeof samples> | null = null;
      const context: ReadinessContext = {
        m,
        sourceForTarget: sourceForTarget(deps, m.plan),
        pgbouncer: pgbouncerConsole(deps, m.plan),
        source: source.session,
        target: target.session,
        names,
        samples: () => (taken ??= samples()),
      };
      try {
        const conditions: Condition[] = [];
        for (const check of CHECKS.filter(({ when }) => when?.(m.plan) ?? true))
          conditions.push({
            name: check.name,
            ...(performance.now() > until
              ? unknown('The other looks took so long that this one was left for the next time.')
              : await look(check, context)),
          });
        return { conditions, sample: latest };
      } finally {
        await Promise.all([source.close(), target.close()]);
      }
    },
  };
}

async function look(check: ReadinessCheck, context: ReadinessContext) {
  try {
    return await check.run(context);
  } catch (error) {
    activitySignal().throwIfAborted();
    const failure = toMigrationError(error, { server: check.server, doing: `looking at ${check.title}` });
    // What a failure says to do is for a migration that is parked by it.
    const next = failure.type === 'PrivilegeMissing' ? 'Grant our role what it lacks.' : null;
    return unknown(`This could not be seen. ${failure.message}`, next);
  }
}

/** A server that cannot be reached leaves the conditions of the other one. */
async function open(deps: ActivityDeps, m: Migration, server: 'source' | 'target') {
  try {
    const session = await (server === 'source' ? openSource : openTarget)(deps, m, 'probe');
    await session.query(`SET statement_timeout = ${LIMITS.readinessStatementMs}`);
    return { session: () => session, close: () => session.close() };
  } catch (error) {
    activitySignal().throwIfAborted();
    const failure = toMigrationError(error, { server, doing: 'connecting' });
    return {
      session: (): Session => {
        throw failure;
      },
      close: () => Promise.resolve(),
    };
  }
}

async function takeSample(source: Session, target: Session, names: string[]): Promise<StreamSample> {
  const { applyErrors } = await readSubscriptions(target, names);
  const flushed = bytesOf(await flushLsn(source));
  return { atMs: Date.now(), flushed, confirmed: bytesOf((await confirmedLsn(source, names)) ?? '0/0'), applyErrors };
}
