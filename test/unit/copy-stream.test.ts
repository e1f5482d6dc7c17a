import type { Socket } from 'node:net';
import { PassThrough } from 'node:stream';
import { setImmediate as turn } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { divertCopyData } from '../../src/postgres/copy-stream.ts';
import { LIMITS } from '../../src/domain/limits.ts';

function frame(type: string, content: string | Buffer): Buffer {
  const body = Buffer.from(content);
  const header = Buffer.alloc(5);
  header.write(type);
  header.writeUInt32BE(body.length + 4, 1);
  return Buffer.concat([header, body]);
}

function relay() {
  const [from, to] = [new PassThrough(), new PassThrough()];
  const own: Buffer[] = [];
  from.on('data', (chunk: Buffer) => own.push(chunk));
  let bytes = 0;
  const restore = divertCopyData(from as unknown as Socket, to as unknown as Socket, (count) => (bytes += count));
  return { from, to, own: () => Buffer.concat(own), bytes: () => bytes, restore };
}

const COPIES = [frame('d', 'first row'), frame('d', ''), frame('d', Buffer.alloc(300, 'd')), frame('c', '')];
const OTHERS = [frame('H', 'copy out'), frame('N', 'a notice dddd'), frame('C', 'COPY 3\0'), frame('Z', 'T')];
const STREAM = Buffer.concat(
  [OTHERS[0], COPIES[0], COPIES[1], OTHERS[1], COPIES[2], COPIES[3], OTHERS[2], OTHERS[3]].map(
    (each) => each ?? Buffer.alloc(0),
  ),
);

describe('divertCopyData', () => {
  it('parts copied data from all else, wherever the chunks are cut', async () => {
    for (let size = 1; size <= STREAM.length; size++) {
      const { from, to, own, bytes } = relay();
      for (let start = 0; start < STREAM.length; start += size) from.write(STREAM.subarray(start, start + size));
      await turn();
      await turn();
      expect(to.read()).toEqual(Buffer.concat(COPIES));
      expect(own()).toEqual(Buffer.concat(OTHERS));
      expect(bytes()).toBe(Buffer.concat(COPIES).length);
    }
  });

  it('pauses the source while the target takes nothing, and goes on when it does', async () => {
    const { from, to } = relay();
    const piece = frame('d', Buffer.alloc(1024 * 1024));
    let sent = 0;
    for (; sent < 64 && !from.isPaused(); sent++) {
      from.write(piece);
      await turn();
    }
    expect(to.readableLength + to.writableLength).toBeLessThan(LIMITS.relayBufferBytes + 2 * piece.length);
    expect(from.isPaused()).toBe(true);
    let received = 0;
    to.on('data', (chunk: Buffer) => (received += chunk.length));
    for (let round = 0; round < 100 && received < sent * piece.length; round++) await turn();
    expect(received).toBe(sent * piece.length);
    expect(from.isPaused()).toBe(false);
  });

  it("gives the socket back to pg's own listener, with the beginning of a message that it held", async () => {
    const { from, own, restore } = relay();
    from.write(Buffer.concat([...OTHERS, Buffer.from('N')]));
    await turn();
    restore();
    from.write('rest');
    await turn();
    expect(own().toString()).toBe(`${Buffer.concat(OTHERS).toString()}Nrest`);
    expect(from.listenerCount('data')).toBe(1);
  });
});
