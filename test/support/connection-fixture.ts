import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll } from 'vitest';
import type { ConnInfo } from '../../src/postgres/conninfo.ts';
import { connect } from '../../src/postgres/connection.ts';
import { programEnvironment } from '../../src/postgres/program-environment.ts';
import { findProgram, runProgram } from '../../src/postgres/programs.ts';

/** Every printable character, those that mean something in a URI, a conninfo, SQL or a passfile among them. */
export const PRINTABLE = Array.from({ length: 95 }, (_, n) => String.fromCharCode(32 + n)).join('');

/** A directory of the test file, and how to put a file into it. */
export function useDirectory(): { path: string; file(this: void, name: string, text: string): string } {
  const directory = {
    path: '',
    file(this: void, name: string, text: string) {
      const full = path.join(directory.path, name);
      writeFileSync(full, text);
      chmodSync(full, 0o600);
      return full;
    },
  };
  beforeAll(() => void (directory.path = mkdtempSync(path.join(tmpdir(), 'connection-'))));
  afterAll(() => rmSync(directory.path, { recursive: true }));
  return directory;
}

export interface Seen {
  user: string;
  database: string;
  port: number;
  tls: boolean;
  workMem: string;
}

/** Logs in, and tells who and where we are then. */
export async function login(info: ConnInfo, database?: string): Promise<Seen> {
  const session = await connect({ server: 'source', info }, { applicationName: 'test', ...(database && { database }) });
  try {
    return await session.one<Seen>(
      `SELECT current_user AS user, current_database() AS database, current_setting('port')::int AS port,
              (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()) AS tls,
              current_setting('work_mem') AS "workMem"`,
    );
  } finally {
    await session.close();
  }
}

/** What pg_dump writes when it connects as our sessions do. */
export async function dump(info: ConnInfo): Promise<string> {
  const program = await findProgram('pg_dump', { sourceVersion: 170000, targetVersion: 170000 });
  const request = { database: 'postgres', version: 170000, applicationName: 'test' };
  const env = programEnvironment({ server: 'source', info }, request);
  let output = '';
  for await (const text of runProgram(program, ['--schema-only'], { env })) output += text;
  return output;
}
