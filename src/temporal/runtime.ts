import type { LogLevel, LogMetadata } from '@temporalio/common';
import type { Logger as SdkLogger } from '@temporalio/worker';
import { Runtime } from '@temporalio/worker';
import type { Logger } from 'pino';
import { pino } from 'pino';
import { LIMITS } from '../domain/limits.ts';
import type { Secrets } from './secrets.ts';

const LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'];

export interface LogOutput {
  write(text: string): unknown;
  isTTY?: boolean;
}

/**
 * JSON lines for collectors, one readable line each on a terminal; without anything that `secrets` knows.
 * PGTRANSIT_LOG_LABEL is on every line.
 * @throws Error with one sentence when PGTRANSIT_LOG_LEVEL is no level.
 */
export function createLog(env: NodeJS.ProcessEnv, secrets: Secrets, output: LogOutput = process.stderr): Logger {
  const { PGTRANSIT_LOG_LEVEL: level = 'info', PGTRANSIT_LOG_LABEL: label } = env;
  if (!LEVELS.includes(level)) throw new Error(`PGTRANSIT_LOG_LEVEL is "${level}"; it can be ${LEVELS.join(', ')}.`);
  const format = output.isTTY === true ? readable : (line: string) => line;
  return pino(
    {
      level,
      base: label === undefined || label === '' ? null : { migration: label },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { error: messageAndCause },
    },
    { write: (line) => void output.write(format(secrets.mask(line))) },
  );
}

/** Without stacks: what failed is known by its message, and stacks hold paths and parameters. */
function messageAndCause(error: unknown): unknown {
  if (!(error instanceof Error)) return error;
  const messages: string[] = [];
  for (let cause: unknown = error; cause instanceof Error; cause = cause.cause) messages.push(cause.message);
  return [...new Set(messages)].join(': ');
}

function readable(line: string): string {
  const { time, level, msg, ...rest } = JSON.parse(line) as Record<string, unknown>;
  const fields = Object.entries(rest).map(
    ([key, value]) => `${key}=${typeof value === 'string' ? value : JSON.stringify(value)}`,
  );
  const text = [String(msg), ...fields].join(' ').replace(/\s*\n\s*/g, ' ');
  return `${String(time).slice(11, 19)} ${String(level).toUpperCase().padEnd(5)} ${text}\n`;
}

/** Says nothing that helps whoever reads a log line, or is said by other fields. */
const LEFT_OUT = new Set([
  'taskToken',
  'sdkComponent',
  'namespace',
  'isLocal',
  'workflowRunId',
  'activityId',
  'target',
  'spanContexts',
]);

/** Of the worker that serves lanes only, which is meant. */
const EXPECTED = /^No workflows registered/;

/** Sends what the SDK, workflows and activities log through ours. Once a process, before the first connection. */
export function installRuntime(log: Logger): void {
  const lastSaid = new Map<string, number>();
  const write = (level: LogLevel, message: string, meta?: LogMetadata): void => {
    const component: unknown = meta?.['sdkComponent'];
    const machinery = component === 'worker' || component === 'core';
    // What the SDK says about its own workings interests its developers; what a step says interests the operator.
    const quiet =
      (machinery && level === 'INFO') || EXPECTED.test(message) || (component === 'core' && isRepeated(message));
    const fields = Object.fromEntries(Object.entries(meta ?? {}).filter(([key]) => !LEFT_OUT.has(key)));
    log[quiet ? 'debug' : LEVEL[level]](fields, message);
  };
  // While Temporal is away, each poller would say so several times a second.
  const isRepeated = (message: string): boolean => {
    const now = Date.now();
    if (now - (lastSaid.get(message) ?? 0) < LIMITS.repeatLogMs) return true;
    lastSaid.set(message, now);
    return false;
  };
  const logger: SdkLogger = {
    log: write,
    trace: (message, meta) => write('TRACE', message, meta),
    debug: (message, meta) => write('DEBUG', message, meta),
    info: (message, meta) => write('INFO', message, meta),
    warn: (message, meta) => write('WARN', message, meta),
    error: (message, meta) => write('ERROR', message, meta),
  };
  Runtime.install({
    logger,
    telemetryOptions: { logging: { filter: { core: 'WARN', other: 'ERROR' }, forward: {} } },
    // The command line decides what a signal means: the first one ends both workers, the second the process.
    shutdownSignals: [],
  });
}

const LEVEL = { TRACE: 'trace', DEBUG: 'debug', INFO: 'info', WARN: 'warn', ERROR: 'error' } as const;
