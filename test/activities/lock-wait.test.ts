import { afterEach, beforeEach, expect, test } from 'vitest';
import pg from 'pg';
import type { Session } from '../../src/postgres/connection.ts';
import { connect } from '../../src/postgres/connection.ts';
import { parseConnInfo } from '../../src/postgres/conninfo.ts';
import { readLockWait } from '../../src/postgres/lock-wait.ts';
import { eventually } from '../support/copy-fixture.ts';
import { createDatabase, dropDatabase, useServer } from '../support/servers.ts';

const ID = '0123456789ab';

let database: { name: string; uri: string };
let clients: pg.Client[];
let session: Session;

async function client(name: string): Promise<pg.Client> {
  const made = new pg.Client({ connectionString: database.uri, application_name: name });
  made.on('error', () => undefined); // dropping the database ends it
  await made.connect();
  clients.push(made);
  return made;
}

beforeEach(async () => {
  const server = await useServer(18);
  database = await createDatabase(server.uri());
  clients = [];
  session = await connect(
    { server: 'target', info: parseConnInfo(database.uri, 'the test') },
    { applicationName: `pgtransit_${ID}_control` },
  );
  await session.query('CREATE TABLE public.t (id int)');
});

afterEach(async () => {
  await session.close();
  await Promise.all(clients.map((one) => one.end()));
  await dropDatabase((await useServer(18)).uri(), database.name);
});

const untilWaiting = (count: number) =>
  eventually(`${count} that wait`, async () => {
    const locks = 'SELECT FROM pg_locks WHERE NOT granted AND relation = $1::regclass';
    return (await session.query(locks, ['public.t'])).length === count;
  });

test('who keeps a step waiting is named, not who stands in the queue before it, and only after a while', async () => {
  const holder = await client('report "tool"');
  await holder.query('BEGIN; LOCK TABLE public.t IN ACCESS SHARE MODE');
  const queue = (await client('queue')).query('ALTER TABLE public.t ADD COLUMN a int');
  await untilWaiting(1);
  const step = (await client(`pgtransit_${ID}_control`)).query('ALTER TABLE public.t ADD COLUMN b int');
  await untilWaiting(2);
  const { pid } = await session.one<{ pid: number }>(
    `SELECT pid FROM pg_stat_activity WHERE application_name = 'report "tool"'`,
  );
  expect(await readLockWait(session, ID, 0)).toBe(
    `It waits for a lock that session ${pid} of the target is in the way of ` +
      `("report ""tool""", user postgres, idle in transaction). ` +
      `Let it finish, or end it: SELECT pg_terminate_backend(${pid});`,
  );
  expect(await readLockWait(session, ID, 60_000)).toBeNull();
  // another migration's business
  expect(await readLockWait(session, 'ffffffffffff', 0)).toBeNull();
  await holder.query('COMMIT');
  await Promise.all([queue, step]);
  expect(await readLockWait(session, ID, 0)).toBeNull();
});

test('steps of one migration that wait for each other are nothing to tell', async () => {
  const [one, two] = [await client(`pgtransit_${ID}_copy`), await client(`pgtransit_${ID}_index`)];
  await one.query('BEGIN; LOCK TABLE public.t');
  const waiting = two.query('ALTER TABLE public.t ADD COLUMN a int');
  await untilWaiting(1);
  expect(await readLockWait(session, ID, 0)).toBeNull();
  await one.query('COMMIT');
  await waiting;
});
