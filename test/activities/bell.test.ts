import { afterEach, beforeEach, expect, test } from 'vitest';
import { Bell, ring } from '../../src/postgres/bell.ts';
import type { Session } from '../../src/postgres/connection.ts';
import { connect } from '../../src/postgres/connection.ts';
import { parseConnInfo } from '../../src/postgres/conninfo.ts';
import { createDatabase, dropDatabase, useServer } from '../support/servers.ts';

let database: { name: string; uri: string };
let worker: Session;
let waiter: Session;

beforeEach(async () => {
  database = await createDatabase((await useServer(18)).uri());
  const info = parseConnInfo(database.uri, 'the test');
  const open = () => connect({ server: 'target', info }, { applicationName: 'pgtransit_test_bell' });
  [worker, waiter] = await Promise.all([open(), open()]);
});

afterEach(async () => {
  await Promise.all([worker.close(), waiter.close()]);
  await dropDatabase((await useServer(18)).uri(), database.name);
});

test('who waits is woken when the transaction that rings commits, and not before', async () => {
  await worker.query('CREATE TABLE public.done ()');
  const bell = await Bell.on(waiter);
  let heard = false;
  const waiting = bell.heard().then(() => (heard = true));
  await worker.transaction(async () => {
    await worker.query('DROP TABLE public.done');
    await ring(worker);
    await waiter.query('SELECT'); // its answer would bring a ring with it
    expect(heard).toBe(false);
  });
  await waiting;
  expect(await waiter.query(`SELECT WHERE to_regclass('public.done') IS NULL`)).toHaveLength(1);
});

test('what rang while nobody waited is heard at once, one time', async () => {
  const bell = await Bell.on(waiter);
  await ring(worker);
  await waiter.query('SELECT');
  await bell.heard();
  let heard = false;
  void bell.heard().then(() => (heard = true));
  await waiter.query('SELECT');
  expect(heard).toBe(false);
});
