import { expect, test } from 'vitest';
import { readTransactions } from '../../src/postgres/pgoutput.ts';

const int = (bytes: number, value: number): Buffer => {
  const buffer = Buffer.alloc(bytes);
  buffer.writeUIntBE(value, 0, bytes);
  return buffer;
};
const message = (...parts: (string | Buffer)[]): Buffer =>
  Buffer.concat(parts.map((part) => (typeof part === 'string' ? Buffer.from(part) : part)));
const lsn = (value: bigint): Buffer => {
  const buffer = Buffer.alloc(8);
  buffer.writeBigUInt64BE(value);
  return buffer;
};
const value = (text: string): Buffer => message('t', int(4, Buffer.byteLength(text)), text);

const BEGIN = message('B', lsn(0x1_0000_0010n), lsn(0n), int(4, 7));
const RELATION = message(
  ...['R', int(4, 16384), 'public\0', 'größe\0', 'd', int(2, 2)],
  ...[int(1, 1), 'id\0', int(4, 20), int(4, 0)],
  ...[int(1, 0), 'v\0', int(4, 25), int(4, 0)],
);
const relation = {
  ...{ oid: 16384, schema: 'public', name: 'größe', identity: 'd' },
  columns: [
    { name: 'id', key: true },
    { name: 'v', key: false },
  ],
};

test('changes of a stream are read with their relation, old keys, NULLs, and what was not sent', () => {
  const [transaction, ...more] = readTransactions([
    BEGIN,
    RELATION,
    message('I', int(4, 16384), 'N', int(2, 2), value('1'), value('ä')),
    message('U', int(4, 16384), 'N', int(2, 2), value('1'), 'u'),
    message('U', int(4, 16384), 'K', int(2, 2), value('1'), 'n', 'N', int(2, 2), value('2'), 'n'),
    message('D', int(4, 16384), 'K', int(2, 2), value('2'), 'n'),
    message('T', int(4, 1), int(1, 0), int(4, 16384)),
    message('C', int(1, 0), lsn(0n), lsn(0n), lsn(0n)),
  ]);
  expect(more).toEqual([]);
  expect(transaction).toEqual({
    commitLsn: 0x1_0000_0010n,
    changes: [
      { kind: 'INSERT', relation, row: [{ text: '1' }, { text: 'ä' }] },
      { kind: 'UPDATE', relation, old: null, row: [{ text: '1' }, 'unchanged'] },
      { kind: 'UPDATE', relation, old: [{ text: '1' }, 'null'], row: [{ text: '2' }, 'null'] },
      { kind: 'DELETE', relation, old: [{ text: '2' }, 'null'] },
      { kind: 'TRUNCATE', relations: [relation] },
    ],
  });
});
