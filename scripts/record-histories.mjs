/**
 * Runs small migrations on servers of its own and keeps their histories for test/replay, in a folder named for the
 * version in package.json:
 *
 *   node scripts/build.mjs && node scripts/record-histories.mjs
 *
 * The histories of a released version are never recorded again: they stand for migrations that run somewhere.
 */
import { Buffer } from 'node:buffer';
import { execFile, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { startPostgres } from '../dist/lab/postgres-server.js';
import { startTemporalServer } from '../dist/lab/temporal-server.js';
import { temporalCliPath } from '../dist/src/temporal/cli-path.js';
import { startWorkerProcess } from '../dist/lab/worker-process.js';

const root = fileURLToPath(new URL('..', import.meta.url));
const { version } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8'));
const folder = path.join(root, 'test', 'replay', 'histories', version);

const SCHEMA = `
  CREATE TABLE customer (id int PRIMARY KEY, name text NOT NULL UNIQUE);
  CREATE TABLE "order" (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer int NOT NULL REFERENCES customer);
  INSERT INTO customer SELECT n, 'Customer ' || n FROM generate_series(1, 100) n;
  INSERT INTO "order" (customer) SELECT 1 + n % 100 FROM generate_series(1, 1000) n;
  CREATE MATERIALIZED VIEW orders AS SELECT customer, count(*) FROM "order" GROUP BY customer;`;

/** An index that cannot be built on the server of this port, and what mends that. */
const PICKY = (port) => `
  CREATE FUNCTION picky(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
    $$ BEGIN IF inet_server_port() = ${port} THEN RAISE 'not on this server'; END IF; RETURN i; END $$;
  CREATE INDEX ON customer (picky(id));`;
const MENDED = 'CREATE OR REPLACE FUNCTION picky(i int) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT i $$';

/** One lane of each kind is enough where lanes are not the point. */
const FEW_LANES = { databases: 1, copy: 1, index: 1 };

const GIVE_UP_MS = 120_000;

async function main() {
  const released = spawnSync('git', ['tag', '--list', `v${version}`], { cwd: root, encoding: 'utf8' });
  if (released.stdout.trim() !== '') {
    throw new Error(`Version ${version} is released, and its histories stay as they are. Raise the version first.`);
  }
  const [source, target, temporal] = await Promise.all([
    startPostgres({ major: 17 }),
    startPostgres({ major: 18 }),
    startTemporalServer(),
  ]);
  for (const database of ['shop', 'ledger']) {
    await source.psql('postgres', `CREATE DATABASE ${database}`);
    await source.psql(database, SCHEMA);
  }
  await startWorkerProcess({
    PGTRANSIT_TASK_QUEUE: 'pgtransit',
    SOURCE_SERVICE_URI: source.uri('postgres'),
    TARGET_SERVICE_URI: target.uri('postgres'),
    TEMPORAL_ADDRESS: temporal.address,
  });
  mkdirSync(folder, { recursive: true });

  const cli = async (...args) =>
    (await promisify(execFile)(temporalCliPath(), [...args, '--address', temporal.address], { maxBuffer: 2 ** 28 }))
      .stdout;
  const start = (id, plan, type = 'migrateCluster') =>
    cli(
      ...['workflow', 'start', '--task-queue', 'pgtransit', '--type', type, '--workflow-id', id],
      ...['--input', JSON.stringify(plan)],
    );
  const progress = async (id) => {
    const answer = await cli('workflow', 'query', '-w', id, '--type', 'progress', '-o', 'json').catch(() => null);
    return answer === null ? null : JSON.parse(answer).queryResult[0];
  };
  const until = async (id, holds) => {
    for (const giveUpAt = Date.now() + GIVE_UP_MS; ;) {
      const answer = await progress(id);
      if (answer?.databases?.length > 0 && holds(answer)) return;
      if (Date.now() > giveUpAt) throw new Error(`${id} did not get there: ${JSON.stringify(answer)}`);
      await delay(200);
    }
  };
  const phase = (id, wanted) => until(id, (answer) => answer.databases.every((database) => database.phase === wanted));
  const stop = (id) =>
    cli('workflow', 'signal', '-w', id, '--name', 'stopReplication', '--input', '{"reason":"cutover"}');
  const ended = (id) => cli('workflow', 'result', '-w', id).catch(() => undefined);
  const keep = async (workflowId, name) =>
    save(name, JSON.parse(await cli('workflow', 'show', '-w', workflowId, '--output', 'json')));
  const dropTargets = async () => {
    for (const database of ['shop', 'ledger'])
      await target.psql('postgres', `DROP DATABASE IF EXISTS ${database} WITH (FORCE)`);
  };

  await start('check', {}, 'validateCluster');
  await ended('check');
  await keep('check', 'validate-cluster');

  await start('blue-green', {});
  await phase('blue-green', 'streaming');
  await keep('blue-green', 'cluster-streaming');
  await keep('blue-green/shop', 'database-streaming');
  await stop('blue-green');
  await ended('blue-green');
  await keep('blue-green', 'cluster-stopped-by-signal');
  await keep('blue-green/shop', 'database-by-replication');

  await dropTargets();
  await start('by-dump', { method: 'dump', databases: { include: ['shop'] }, parallelism: FEW_LANES });
  await ended('by-dump');
  await keep('by-dump/shop', 'database-by-dump');

  // A row that only the target has stands in the way of the same row of the source: the cutover parks.
  await dropTargets();
  await start('parked', { databases: { include: ['shop'] }, stop: { fence: 'read-only' }, parallelism: FEW_LANES });
  await phase('parked', 'streaming');
  await target.psql('shop', `INSERT INTO customer VALUES (101, 'stray')`);
  await source.psql('shop', `INSERT INTO customer VALUES (101, 'Customer 101')`);
  await stop('parked');
  await until('parked', ({ phase }) => phase === 'stopping');
  await keep('parked/shop', 'database-stopping');
  await until('parked', ({ attention }) => attention?.includes('resolve with'));
  await keep('parked/shop', 'database-parked');
  await target.psql('shop', 'DELETE FROM customer WHERE id = 101');
  await cli('workflow', 'update', 'execute', '-w', 'parked', '--name', 'resolve', '--input', '{"action":"retry"}');
  await phase('parked', 'streaming');
  await until('parked', ({ attention }) => attention === null);
  await stop('parked');
  await ended('parked');
  await keep('parked/shop', 'database-parked-and-resolved');

  await dropTargets();
  await start('cancelled', { databases: { include: ['ledger'] }, parallelism: FEW_LANES });
  await phase('cancelled', 'streaming');
  await cli('workflow', 'cancel', '-w', 'cancelled');
  await ended('cancelled');
  await keep('cancelled/ledger', 'database-cancelled');

  // Two as one behind an external fence; then one is gone back to, and the other stays.
  await dropTargets();
  await start('together', { stop: { fence: 'external' }, reverse: {}, parallelism: FEW_LANES });
  await phase('together', 'streaming');
  const tell = (name, input) =>
    cli('workflow', 'update', 'execute', '-w', 'together', '--name', name, '--input', JSON.stringify(input));
  await tell('stopReplication', { together: true });
  await until('together', ({ databases }) => databases.every(({ waitsFor }) => waitsFor === 'fenced'));
  await tell('fenced', { by: 'a proxy' });
  await phase('together', 'reversing');
  await keep('together/shop', 'database-reversing');
  await tell('rollback', { database: 'shop' });
  await tell('complete', { database: 'ledger' });
  await ended('together');
  await keep('together', 'cluster-together');
  await keep('together/shop', 'database-rolled-back');

  // A key that cannot be built on the target: the plan says to undo everything.
  await dropTargets();
  await source.psql('ledger', PICKY(target.port));
  await start('failed', { databases: { include: ['ledger'] }, onError: 'fail', parallelism: FEW_LANES });
  await ended('failed');
  await keep('failed', 'cluster-failed');
  await keep('failed/ledger', 'database-failed');

  // The same parks while it copies, and meanwhile the holder is ended: the rest is copied under the next snapshot.
  await dropTargets();
  await start('generations', { databases: { include: ['ledger'] }, parallelism: FEW_LANES });
  await until('generations', ({ attention }) => attention?.includes('resolve with'));
  await source.psql(
    'postgres',
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name ~ '^pgtransit_.*_holder$'`,
  );
  await until(
    'generations',
    ({ attention, databases: [database] }) => database.generations > 1 && attention?.includes('resolve with'),
  );
  await target.psql('ledger', MENDED);
  await cli('workflow', 'update', 'execute', '-w', 'generations', '--name', 'resolve', '--input', '{"action":"retry"}');
  await phase('generations', 'streaming');
  await stop('generations');
  await ended('generations');
  await keep('generations/ledger', 'database-in-generations');
}

function save(name, history) {
  const events = history.events.map((event) => JSON.stringify(scrub(slim(event))));
  const text = `{"events":[\n${events.join(',\n')}\n]}\n`;
  const payloads = [...text.matchAll(/"data":"([^"]*)"/g)].map(([, data]) => Buffer.from(data, 'base64').toString());
  const told = [os.hostname(), root].filter((secret) => [text, ...payloads].some((part) => part.includes(secret)));
  if (told.length > 0) throw new Error(`The history ${name} tells about this machine: ${told.join(', ')}.`);
  const last = history.events.at(-1).eventType;
  writeFileSync(path.join(folder, `${name}.json`), text);
  console.log(`${name}: ${events.length} events, ${Math.round(text.length / 1024)} kB, ${last}`);
}

/** What each step was given, and what is shown beside it: a replay compares names and order only, and they are big. */
const LEFT_OUT = [
  [
    'activityTaskScheduledEventAttributes',
    [
      'input',
      'header',
      'retryPolicy',
      'scheduleToCloseTimeout',
      'scheduleToStartTimeout',
      'startToCloseTimeout',
      'heartbeatTimeout',
    ],
  ],
  ['activityTaskStartedEventAttributes', ['requestId', 'workerVersion']],
  ['workflowTaskScheduledEventAttributes', ['taskQueue', 'startToCloseTimeout']],
  ['workflowTaskStartedEventAttributes', ['requestId', 'workerVersion']],
  ['signalExternalWorkflowExecutionInitiatedEventAttributes', ['input', 'header']],
  ['workflowTaskCompletedEventAttributes', ['workerVersion', 'meteringMetadata']],
];

function slim(event) {
  delete event.userMetadata;
  delete event.taskId;
  for (const [attributes, fields] of LEFT_OUT) for (const field of fields) delete event[attributes]?.[field];
  return event;
}

/** Who ran it, and on which machine, is of no use to a replay. */
function scrub(value) {
  if (Array.isArray(value)) return value.map(scrub);
  if (typeof value !== 'object' || value === null) return value;
  const sticky = value.kind === 'TASK_QUEUE_KIND_STICKY' ? { name: 'sticky' } : {};
  const entries = Object.entries({ ...value, ...sticky })
    .filter(([key]) => key !== 'identity')
    .map(([key, entry]) => [key, scrub(entry)]);
  return Object.fromEntries(entries);
}

// What this process started ends with it (lab/processes.ts).
main().then(
  () => process.exit(0),
  (error) => {
    console.error(error instanceof Error ? error.message : error);
    process.exit(1);
  },
);
