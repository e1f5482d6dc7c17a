import { ApplicationFailure, CancelledFailure } from '@temporalio/common';
import { MockActivityEnvironment } from '@temporalio/testing';
import { DefaultLogger } from '@temporalio/worker';
import { describe, expect, it } from 'vitest';
import { MigrationError } from '../../src/domain/failure.ts';
import { errorInterceptor } from '../../src/temporal/error-interceptor.ts';
import type { Secrets } from '../../src/temporal/secrets.ts';
import { createSecrets, secretsOfEnvironment } from '../../src/temporal/secrets.ts';
import { createLog } from '../../src/temporal/runtime.ts';
import { createDeps } from '../../src/worker.ts';

function environment(secrets: Secrets = createSecrets()): MockActivityEnvironment {
  return new MockActivityEnvironment(
    {},
    {
      interceptors: [(context) => ({ inbound: errorInterceptor(context, secrets) })],
      logger: new DefaultLogger('ERROR'),
    },
  );
}

async function failureOf(error: unknown, secrets?: Secrets): Promise<ApplicationFailure> {
  const thrown: unknown = await environment(secrets)
    .run(() => Promise.reject(error as Error))
    .catch((reason: unknown) => reason);
  expect(thrown).toBeInstanceOf(ApplicationFailure);
  return thrown as ApplicationFailure;
}

const secretsOf = (...texts: string[]): Secrets => {
  const secrets = createSecrets();
  texts.forEach((text) => secrets.add(text));
  return secrets;
};

describe('what a step throws', () => {
  it('keeps its type, says what to do next, and is not retried when waiting cannot mend it', async () => {
    const failure = await failureOf(
      new MigrationError('PrivilegeMissing', 'Role a may not read public.t.', { object: 'public.t' }),
    );
    expect(failure.type).toBe('PrivilegeMissing');
    expect(failure.message).toBe('Role a may not read public.t. Grant the privilege, then resolve with retry.');
    expect(failure.nonRetryable).toBe(true);
    expect(failure.details).toEqual([expect.objectContaining({ object: 'public.t', sqlstate: null })]);
  });

  it('is retried when waiting can mend it', async () => {
    const failure = await failureOf(new MigrationError('ConnectionFailed', 'The server went away.'));
    expect(failure.nonRetryable).toBe(false);
  });

  it('is an Unknown that nobody retries when nobody expected it', async () => {
    const failure = await failureOf(new TypeError('x is not a function'));
    expect([failure.type, failure.nonRetryable, failure.message]).toEqual(['Unknown', true, 'x is not a function']);
  });

  it('stays an ApplicationFailure when it is one', async () => {
    const thrown = ApplicationFailure.create({
      type: 'Own',
      message: 'm',
      nonRetryable: true,
      details: [1],
      nextRetryDelay: '5 s',
    });
    const failure = await failureOf(thrown);
    expect(failure).toMatchObject({
      type: 'Own',
      message: 'm',
      nonRetryable: true,
      details: [1],
      nextRetryDelay: '5 s',
    });
  });

  it('carries no stack and no cause into the history', async () => {
    const error = new MigrationError('CopyFailed', 'It failed.');
    error.cause = new Error('inner');
    const failure = await failureOf(error);
    expect(failure.stack).toBe('');
    expect(failure.cause).toBeUndefined();
  });

  it('is a cancellation once the step was told to end, whatever came of the sessions that were cut off', async () => {
    for (const consequence of [
      new MigrationError('ConnectionFailed', 'Connection terminated.'),
      new MigrationError('CopyFailed', 'Premature close.'),
      new Error('write after end'),
    ]) {
      const step = environment();
      const thrown: unknown = await step
        .run(() => {
          step.cancel();
          throw consequence;
        })
        .catch((reason: unknown) => reason);
      expect(thrown).toBeInstanceOf(CancelledFailure);
    }
  });
});

describe('secrets', () => {
  it('are taken out of message and details, however they are spelled', async () => {
    const secret = `p'w"d\\ä%40`;
    const spellings = [secret, encodeURIComponent(secret), secret.replaceAll("'", "''"), JSON.stringify(secret)];
    const error = new MigrationError('ServerError', spellings.join(' | '), { object: secret, next: `SET ${secret}` });
    const failure = await failureOf(error, secretsOf(secret));
    const told = JSON.stringify([failure.message, failure.details]);
    expect(failure.message).toBe('*** | *** | *** | "***" SET ***');
    expect(told).not.toContain('ä');
    expect(told).not.toContain('%C3%A4');
  });

  it('leave no rest when one is part of another', () => {
    expect(secretsOf('abcd', 'abcdefgh').mask('abcdefgh abcd')).toBe('*** ***');
  });

  it('are known from every connection string in the environment, also one that cannot be read', () => {
    const env = {
      SOURCE_SERVICE_URI: 'postgres://u:first%21secret@h/db',
      ANYTHING: "host=h password='second secret'",
      BROKEN: 'postgres://u:third/secret@h/db:x:y',
      TEMPORAL_API_KEY: 'fourth-secret',
    };
    const secrets = secretsOfEnvironment(env);
    expect(secrets.mask('first!secret, second secret, fourth-secret')).toBe('***, ***, ***');
    expect(secrets.mask(`cannot read ${env.BROKEN}`)).not.toContain('third');
  });

  it('are learned from each reference that the worker resolves', () => {
    const deps = createDeps(
      { OLD: 'host=h user=u password=learned-now' },
      { searchAttributes: true, secrets: createSecrets() },
    );
    expect(deps.secrets.mask('learned-now')).toBe('learned-now');
    deps.endpoint('env:OLD', 'source');
    expect(deps.secrets.mask('learned-now')).toBe('***');
  });

  it('do not include a password that is the name of the user, which every message shows', () => {
    const secrets = secretsOfEnvironment({ URI: 'postgres://postgres:postgres@h/db' });
    expect(secrets.mask('connecting as "postgres"')).toBe('connecting as "postgres"');
  });

  it('never reach a log line, nor does a stack', () => {
    const lines: string[] = [];
    const log = createLog({}, secretsOf('quo"ted'), { write: (text: string) => lines.push(text) });
    log.warn(
      { error: new Error('refused quo"ted', { cause: new Error('why') }), uri: 'postgres://u:pw@h/d' },
      'with quo"ted',
    );
    expect(lines.map((line) => JSON.parse(line) as unknown)).toEqual([
      expect.objectContaining({
        level: 'warn',
        msg: 'with ***',
        error: 'refused ***: why',
        uri: 'postgres://u:***@h/d',
      }),
    ]);
  });

  it('stay out of a line on a terminal, which is one line', () => {
    const lines: string[] = [];
    const log = createLog({}, secretsOf('secret'), { isTTY: true, write: (text: string) => lines.push(text) });
    log.info({ database: 'shop' }, 'The secret\nis out');
    expect(lines).toEqual([expect.stringMatching(/^\d\d:\d\d:\d\d INFO {2}The \*\*\* is out database=shop\n$/)]);
  });
});
