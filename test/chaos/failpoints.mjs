/**
 * Loaded into a worker by `node --import`; the product knows nothing of it. Every statement, every program and every
 * result of a step becomes a named failpoint, where a campaign can kill the worker or hold it for a moment:
 *
 *   <step>/<server> <statement>#<n>:<when>   the nth statement that begins so, in this step of one migration
 *   <step>/<program>#<n>:<when>              pg_dump, pg_restore
 *   <step>/result#<n>:before                 the step is done, and Temporal does not know
 *   <step>@<k>:<when>                        the kth of all of these in the step, or else its result
 *
 * when: `before` it is sent, `during`: it is sent and nobody has heard of it, `after` it is answered.
 *
 * PGTRANSIT_FAILPOINTS is a directory. `armed/<name>` is written by the campaign, and holds what is to happen: `kill`
 * the worker, `hold` it there, `kill-child` the program. The first worker that comes there moves it to `fired/<name>`;
 * a hold ends when that file is gone. `passed` has a line for each failpoint in order.
 */
import childProcess from 'node:child_process';
import { appendFileSync, existsSync, readFileSync, readdirSync, renameSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import path from 'node:path';
import { setTimeout } from 'node:timers';
import { setTimeout as delay } from 'node:timers/promises';
import { isMainThread } from 'node:worker_threads';

const HOLD_POLL_MS = 10;
/** pg_dump has a connection by then, and has not written its file. */
const CHILD_MS = 40;

// The threads of workflow code load this file too.
if (isMainThread && process.env.PGTRANSIT_FAILPOINTS) await install(process.env.PGTRANSIT_FAILPOINTS);

async function install(directory) {
  const { Context } = await import('@temporalio/activity');
  const points = createPoints(directory, () => {
    try {
      const { activityType, workflowExecution } = Context.current().info;
      return { step: activityType, workflow: workflowExecution.workflowId };
    } catch {
      return { step: 'none', workflow: '' };
    }
  });
  await patchStatements(points);
  patchPrograms(points);
  await patchWorker(points, JSON.parse(process.env.PGTRANSIT_FAILPOINT_LIMITS ?? '{}'));
}

/** A failpoint is entered once, and then passed at up to three moments. */
function createPoints(directory, whereAmI) {
  const counts = new Map();
  const count = (key) => {
    counts.set(key, (counts.get(key) ?? 0) + 1);
    return counts.get(key);
  };
  const take = (name) => {
    const file = encodeURIComponent(name);
    const fired = path.join(directory, 'fired', file);
    try {
      renameSync(path.join(directory, 'armed', file), fired);
      return { action: readFileSync(fired, 'utf8'), fired };
    } catch {
      return null; // not armed, or another worker was first
    }
  };
  return (label, effect) => {
    const { step, workflow } = whereAmI();
    const names = [
      `${step}/${label}#${count(`${workflow} ${step} ${label}`)}`,
      `${step}@${count(`${workflow} ${step}`)}`,
    ];
    return (when) => {
      appendFileSync(
        path.join(directory, 'passed'),
        `${JSON.stringify({ at: Date.now(), pid: process.pid, name: `${names[0]}:${when}`, effect, workflow })}\n`,
      );
      const armed = readdirSync(path.join(directory, 'armed'));
      if (armed.length === 0) return null;
      // Whatever was to happen in this step happens at its end at the latest.
      const rest =
        label === 'result' ? armed.map(decodeURIComponent).filter((name) => name.startsWith(`${step}@`)) : [];
      for (const name of [...names.map((name) => `${name}:${when}`), ...rest]) {
        const taken = take(name);
        if (taken?.action === 'kill') die();
        if (taken !== null) return taken;
      }
      return null;
    };
  };
}

function die() {
  process.kill(process.pid, 'SIGKILL');
  for (;;) sleepHere(1000);
}

const sleepHere = (ms) => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);

async function held(taken) {
  while (taken !== null && existsSync(taken.fired)) await delay(HOLD_POLL_MS);
}

/** Where nothing can be awaited the whole process waits. */
function heldHere(taken) {
  while (taken?.action === 'hold' && existsSync(taken.fired)) sleepHere(HOLD_POLL_MS);
}

async function patchStatements(points) {
  const { default: pg } = await import('pg');
  const sourcePort = Number(new URL(process.env.SOURCE_SERVICE_URI).port);
  const query = pg.Client.prototype.query;
  const enter = (client, sql) => {
    const server = client.port === sourcePort ? 'source' : 'target';
    return points(`${server} ${headOf(sql)}`, hasEffect(server, sql));
  };

  pg.Client.prototype.query = function (config, ...rest) {
    if (typeof config.submit === 'function') return query.call(this, observed(this, config, enter), ...rest);
    const at = enter(this, typeof config === 'string' ? config : config.text);
    const send = () => {
      const answer = query.call(this, config, ...rest);
      // The socket has it: what the server makes of it is its own business.
      const sent = at('during');
      return answer.then(
        async (result) => {
          if (sent === null) await held(at('after'));
          return result;
        },
        (error) => {
          at('after');
          throw error;
        },
      );
    };
    const before = at('before');
    return before === null ? send() : held(before).then(send);
  };
}

/** What is sent by a query object of our own: its text is known when it is submitted. */
function observed(client, config, enter) {
  const { submit, handleReadyForQuery } = config;
  let at = () => null;
  config.submit = (connection) => {
    const seen = Object.create(connection, {
      query: {
        value: (sql) => {
          at = enter(client, sql);
          heldHere(at('before'));
          connection.query(sql);
          at('during');
        },
      },
    });
    return submit.call(config, seen);
  };
  config.handleReadyForQuery = (...args) => {
    heldHere(at('after'));
    return handleReadyForQuery.call(config, ...args);
  };
  return config;
}

const headOf = (sql) =>
  sql
    .replaceAll(/pgtransit_[0-9a-f]{12}/g, 'ID')
    .replaceAll(/chaos_\d+/g, 'DB')
    .replaceAll(/\s+/g, ' ')
    .trim()
    .slice(0, 44);

const READS = /^\s*(SELECT|WITH|SHOW|SET|BEGIN|ROLLBACK|SAVEPOINT|RELEASE|LOCK|COPY[^;]* TO STDOUT)\b/i;
const WRITES_ANYWAY =
  /pg_terminate_backend|pg_drop_replication_slot|pg_logical_emit_message|pg_export_snapshot|\bsetval\b|\blo_|aiven_extras\.|INSERT INTO|DELETE FROM|UPDATE pgtransit|COMMIT;/;

/** A transaction on the source only reads, so its end changes nothing. */
const hasEffect = (server, sql) =>
  WRITES_ANYWAY.test(sql) || !(READS.test(sql) || (server === 'source' && /^\s*COMMIT/.test(sql)));

function patchPrograms(points) {
  const { spawn } = childProcess;
  childProcess.spawn = function (program, ...rest) {
    const at = points(path.basename(String(program)), true);
    heldHere(at('before'));
    const child = spawn.call(this, program, ...rest);
    if (at('during')?.action === 'kill-child') setTimeout(() => child.kill('SIGKILL'), CHILD_MS);
    child.once('exit', () => heldHere(at('after')));
    return child;
  };
  syncBuiltinESMExports();
}

/** Limits of the campaign's own, also in the workflows' bundle; and the moment before a step's result is reported. */
async function patchWorker(points, limits) {
  const { LIMITS } = await import('../../dist/src/domain/limits.js');
  Object.assign(LIMITS, limits);
  const { Worker } = await import('@temporalio/worker');
  const { create } = Worker;
  Worker.create = function (options) {
    const execute = async (input, next) => {
      const result = await next(input);
      await held(points('result', true)('before'));
      return result;
    };
    const activity = [() => ({ inbound: { execute } }), ...(options.interceptors?.activity ?? [])];
    const { workflowBundle } = options;
    return create.call(this, {
      ...options,
      // Temporal hands the next task to the worker that had the last, and waits for 10 s where that one is dead.
      ...(workflowBundle && { stickyQueueScheduleToStartTimeout: '2 seconds' }),
      ...(workflowBundle && { workflowBundle: { code: withLimits(workflowBundle.codePath, limits) } }),
      interceptors: { ...options.interceptors, activity },
    });
  };
}

function withLimits(bundle, limits) {
  let code = readFileSync(bundle, 'utf8');
  for (const [name, value] of Object.entries(limits)) {
    const parts = code.split(new RegExp(`\\b${name}: [^,]+,`));
    if (parts.length !== 2)
      throw new Error(`The limit ${name} is ${parts.length - 1} times in ${bundle}, and not once.`);
    code = parts.join(`${name}: ${value},`);
  }
  return code;
}
