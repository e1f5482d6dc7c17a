import { randomBytes } from 'node:crypto';
import { closeSync, fsyncSync, openSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import process from 'node:process';

/**
 * Writes a file that only its owner can read, as a whole or not at all: a reader never sees half of it, and what was
 * there before stays until then, with its wider permissions if it had those.
 * @throws Error with one sentence
 */
export function writeReportFile(file: string, text: string): void {
  const temporary = `${file}.${process.pid}-${randomBytes(4).toString('hex')}`;
  try {
    // `wx`: nobody can have put a file or a link there that others read.
    const descriptor = openSync(temporary, 'wx', 0o600);
    try {
      writeFileSync(descriptor, text);
      fsyncSync(descriptor);
    } finally {
      closeSync(descriptor);
    }
    renameSync(temporary, file);
  } catch (error) {
    rmSync(temporary, { force: true });
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    throw new Error(`The report could not be written to ${file} (${code}).`, { cause: error });
  }
}
