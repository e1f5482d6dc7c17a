import type { Socket } from 'node:net';
import { LIMITS } from '../domain/limits.ts';
import { MigrationError } from '../domain/failure.ts';
import type { Session } from './connection.ts';
import { sendScript } from './script.ts';
import { toMigrationError } from './sqlstate.ts';

/** One COPY on either side. */
export interface Copy {
  /** For people: the table. */
  label: string;
  /** `COPY … TO STDOUT` */
  out: string;
  /** `COPY … FROM STDIN`, with what must come right before it. */
  into: string;
}

/** Message types of the protocol (PostgreSQL manual, 54.7). */
const COPY_DATA = 'd'.charCodeAt(0);
const COPY_DONE = 'c'.charCodeAt(0);
/** One byte of type and four of length; the length counts itself and not the type. */
const HEADER_BYTES = 5;
const EMPTY = Buffer.alloc(0);

/**
 * Runs all copies, each side's in one simple query, inside the caller's transactions. What the source sends as CopyData
 * and CopyDone goes to the target's socket as it is: no row is looked at, and a value of any size passes in pieces.
 * The target takes the data of the next COPY while it still works on the one before, since between the statements of a
 * simple query the server reads nothing.
 *
 * A failure ends both sessions: a target that waits for the rest of a COPY would wait for ever, with all its locks.
 * @returns the number of rows of each copy.
 * @throws MigrationError `CopyFailed`, naming the table; what waiting can mend keeps its own type.
 */
export async function relayCopies(
  source: Session,
  target: Session,
  copies: readonly Copy[],
  onBytes: (bytes: number) => void = () => undefined,
): Promise<number[]> {
  const restore = divertCopyData(source.stream as Socket, target.stream as Socket, onBytes);
  const out = sendScript(source, copies.map((copy) => copy.out).join(';\n'));
  const into = sendScript(target, copies.map((copy) => copy.into).join(';\n'));
  const failedOn = (session: Session, tags: readonly string[]) => (error: unknown) => {
    const label = copies[copyTags(tags).length]?.label ?? null;
    const context = { server: session.endpoint.server, doing: `copying ${label ?? 'rows'}`, object: label };
    throw toMigrationError(error, { ...context, otherwise: 'CopyFailed' });
  };
  try {
    // The side that fails first is the one with the reason; what the other says follows from it.
    await Promise.all([
      out.finished.catch(failedOn(source, out.tags)),
      into.finished.catch(failedOn(target, into.tags)),
    ]);
    return requireEqualRows(copies, copyTags(out.tags), copyTags(into.tags));
  } catch (error) {
    source.destroy();
    target.destroy();
    throw error;
  } finally {
    restore();
  }
}

const copyTags = (tags: readonly string[]): string[] => tags.filter((tag) => tag.startsWith('COPY '));

function requireEqualRows(copies: readonly Copy[], sent: readonly string[], received: readonly string[]): number[] {
  return copies.map(({ label }, index) => {
    const [left, right] = [sent[index] ?? 'nothing', received[index] ?? 'nothing'];
    const rows = Number(left.slice('COPY '.length));
    if (left === right && Number.isSafeInteger(rows)) return rows;
    const message = `The source sent "${left}" of ${label}, but the target took "${right}".`;
    throw new MigrationError('CopyFailed', message, { object: label });
  });
}

/**
 * Takes the place of `pg`'s listener on the source's socket: frames of copied data go to the target, all others to
 * that listener, as if nothing stood between. Works on chunks of any size, cut anywhere.
 * @returns what puts the listener back.
 */
export function divertCopyData(from: Socket, to: Socket, onBytes: (bytes: number) => void): () => void {
  const own = from.listeners('data') as ((chunk: Buffer) => void)[];
  /** The beginning of a header whose rest has not come yet. */
  let held: Buffer = EMPTY;
  /** Bytes of the present frame that have not come yet, and whether it is one for the target. */
  let left = 0;
  let copying = false;

  const resume = () => from.resume();
  const deliver = (part: Buffer) => {
    if (part.length === 0) return;
    if (!copying) return own.forEach((listener) => listener(part));
    onBytes(part.length);
    const room = to.write(part);
    if (room || to.writableLength <= LIMITS.relayBufferBytes || from.isPaused()) return;
    from.pause();
    to.once('drain', resume);
  };

  const divert = (chunk: Buffer) => {
    const data = held.length === 0 ? chunk : Buffer.concat([held, chunk]);
    held = EMPTY;
    let start = 0;
    let offset = Math.min(left, data.length);
    left -= offset;
    while (offset < data.length) {
      if (data.length - offset < HEADER_BYTES) {
        held = data.subarray(offset);
        break;
      }
      const type = data[offset];
      const isCopy = type === COPY_DATA || type === COPY_DONE;
      if (isCopy !== copying) {
        deliver(data.subarray(start, offset));
        start = offset;
        copying = isCopy;
      }
      const size = 1 + data.readUInt32BE(offset + 1);
      const here = Math.min(size, data.length - offset);
      offset += here;
      left = size - here;
    }
    deliver(data.subarray(start, offset));
  };

  // Ours first: a socket without a listener would let data fall.
  from.on('data', divert);
  for (const listener of own) from.removeListener('data', listener);
  return () => {
    for (const listener of own) from.on('data', listener);
    from.removeListener('data', divert);
    to.removeListener('drain', resume);
    from.resume();
    if (held.length > 0) own.forEach((listener) => listener(held));
  };
}
