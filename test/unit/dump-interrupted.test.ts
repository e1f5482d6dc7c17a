import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { pgBin } from '../../lab/tools.ts';
import { freePort } from '../../src/temporal/free-port.ts';
import { dumpSchema } from '../../src/postgres/archive.ts';
import { findProgram, runProgram } from '../../src/postgres/programs.ts';

const versions = { sourceVersion: 170000, targetVersion: 180000 };

describe('a program that does not come to its end', () => {
  test('because somebody kills it is tried again', async () => {
    const shell = { path: '/bin/sh', major: 18, env: {} };
    const run = async (): Promise<void> => {
      for await (const piece of runProgram(shell, ['-c', 'kill -9 $$'], { env: {} })) void piece;
    };
    await expect(run()).rejects.toMatchObject({
      type: 'ServerBusy',
      message: 'sh was killed by SIGKILL before it was done.',
    });
  });

  test('because its server cannot be reached is tried again', async () => {
    const dir = mkdtempSync(path.join(os.tmpdir(), 'pgtransit-'));
    onTestFinished(() => rmSync(dir, { recursive: true }));
    const program = await findProgram('pg_dump', versions, { PGTRANSIT_PG_BIN: pgBin(18) });
    const request = {
      program,
      source: {
        server: 'source' as const,
        info: { host: '127.0.0.1', port: String(await freePort()), user: 'nobody' },
      },
      version: versions.sourceVersion,
      database: 'none',
      snapshot: '00000003-00000001-1',
      applicationName: 'test',
      signal: new AbortController().signal,
    };
    await expect(dumpSchema(request, path.join(dir, 'schema.dump'))).rejects.toMatchObject({
      type: 'ConnectionFailed',
    });
  });
});
