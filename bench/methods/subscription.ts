import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import { cleanEnv } from '../../lab/postgres-access.ts';
import type { PostgresServer } from '../../lab/postgres-server.ts';
import { runProgram } from '../../lab/run-program.ts';
import type { Method } from './method.ts';
import { Stopwatch } from './method.ts';

const POLL_MS = 100;

/** What aiven-db-migrate does: the whole schema with its indexes first, then PostgreSQL's own initial copy. */
export const subscription: Method = {
  title: 'full schema, then CREATE SUBSCRIPTION (copy_data)',
  createsDatabase: false,
  missing: () => null,
  async run(task, check) {
    const { source, target, set, scratch } = task;
    const env = cleanEnv(target.env);
    const archive = path.join(scratch, 'schema');
    const program = (name: string): string => path.join(target.binDir, name);
    const watch = new Stopwatch(task);
    await watch.phase('schema', async () => {
      await runProgram(program('pg_dump'), ['-Fc', '--schema-only', '-f', archive, '-d', source.uri(set.name)], {
        env,
      });
      await runProgram(program('pg_restore'), ['--exit-on-error', '-d', target.uri(set.name), archive], { env });
    });
    await watch.phase('copy', async () => {
      await source.psql(set.name, 'CREATE PUBLICATION bench FOR ALL TABLES');
      await target.psql(set.name, `CREATE SUBSCRIPTION bench CONNECTION '${source.uri(set.name)}' PUBLICATION bench`);
      await untilReady(target, set.name);
    });
    const { outcome } = watch;
    await check();
    return outcome;
  },
};

async function untilReady(target: PostgresServer, database: string): Promise<void> {
  const client = new pg.Client({ connectionString: target.uri(database) });
  await client.connect();
  try {
    for (;;) {
      const { rows } = await client.query<{ ready: boolean }>(
        `SELECT bool_and(srsubstate = 'r') AS ready FROM pg_subscription_rel`,
      );
      if (rows[0]?.ready === true) return;
      await delay(POLL_MS);
    }
  } finally {
    await client.end();
  }
}
