import { existsSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { MigrationError } from '../domain/failure.ts';

/**
 * A section of pg_service.conf (manual, 34.17): PGSERVICEFILE, else ~/.pg_service.conf; where that has no such section,
 * the system's file in PGSYSCONFDIR.
 * @throws MigrationError `InvalidPlan` when no file has the section
 */
export function readService(
  service: string,
  env: NodeJS.ProcessEnv,
  file = env['PGSERVICEFILE'] || join(env['HOME'] || homedir(), '.pg_service.conf'),
): Record<string, string> {
  const system = env['PGSYSCONFDIR'] ? [join(env['PGSYSCONFDIR'], 'pg_service.conf')] : [];
  const files = [file, ...system].filter((path) => existsSync(path));
  for (const path of files) {
    const section = readSection(path, service);
    if (section !== null) return section;
  }
  const problem =
    files.length === 0
      ? `The service file ${[file, ...system].join(' or ')} of the worker cannot be read.`
      : `The service file ${files.join(' or ')} of the worker has no section [${service}].`;
  throw new MigrationError('InvalidPlan', problem);
}

function readSection(file: string, service: string): Record<string, string> | null {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    throw new MigrationError('InvalidPlan', `The service file ${file} of the worker cannot be read (${code(error)}).`);
  }
  let current = '';
  let section: Record<string, string> | null = null;
  for (const line of text.split(/\r?\n/).map((line) => line.trim())) {
    const name = /^\[(.*)\]$/.exec(line)?.[1];
    if (name !== undefined) current = name;
    if (current !== service) continue;
    section ??= {};
    const equals = line.indexOf('=');
    if (name === undefined && equals > 0 && !line.startsWith('#'))
      section[line.slice(0, equals).trim()] = line.slice(equals + 1).trim();
  }
  return section;
}

const code = (error: unknown): string =>
  error instanceof Error && 'code' in error ? String(error.code) : 'unknown reason';
