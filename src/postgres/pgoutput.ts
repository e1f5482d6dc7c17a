/** A value of a row as the server wrote it; `unchanged`: a TOASTed one that an UPDATE did not touch is not sent. */
export type Value = { text: string } | 'null' | 'unchanged';

export interface StreamRelation {
  oid: number;
  schema: string;
  name: string;
  /** d: by the key, f: by all columns, i: by an index, n: not at all. */
  identity: string;
  columns: { name: string; key: boolean }[];
}

export type StreamChange =
  | { kind: 'INSERT'; relation: StreamRelation; row: Value[] }
  /** `old` is null where the key did not change. */
  | { kind: 'UPDATE'; relation: StreamRelation; old: Value[] | null; row: Value[] }
  | { kind: 'DELETE'; relation: StreamRelation; old: Value[] }
  | { kind: 'TRUNCATE'; relations: StreamRelation[] };

export interface StreamTransaction {
  /** Where its commit ends, as a number of bytes: what is applied is at or after it. */
  commitLsn: bigint;
  changes: StreamChange[];
}

/**
 * The messages of pgoutput, version 1 of the protocol (manual, "Logical Replication Message Formats"), as transactions in
 * the order of their commits. Each message stands alone, as pg_logical_slot_peek_binary_changes gives them.
 */
export function readTransactions(messages: readonly Buffer[]): StreamTransaction[] {
  const relations = new Map<number, StreamRelation>();
  const transactions: StreamTransaction[] = [];
  const relationOf = (oid: number): StreamRelation => {
    const relation = relations.get(oid);
    if (relation === undefined) throw new Error(`the stream did not describe relation ${oid}`);
    return relation;
  };
  for (const message of messages) {
    const read = reader(message);
    const kind = read.letter();
    if (kind === 'B') {
      transactions.push({ commitLsn: read.int64(), changes: [] });
      continue;
    }
    if (kind === 'R') {
      const relation = readRelation(read);
      relations.set(relation.oid, relation);
      continue;
    }
    const changes = transactions.at(-1)?.changes;
    if (changes === undefined) continue;
    if (kind === 'I') {
      const relation = relationOf(read.int32());
      read.letter();
      changes.push({ kind: 'INSERT', relation, row: readRow(read) });
    } else if (kind === 'U') {
      const relation = relationOf(read.int32());
      const old = read.letter() === 'N' ? null : readRow(read);
      if (old !== null) read.letter();
      changes.push({ kind: 'UPDATE', relation, old, row: readRow(read) });
    } else if (kind === 'D') {
      const relation = relationOf(read.int32());
      read.letter();
      changes.push({ kind: 'DELETE', relation, old: readRow(read) });
    } else if (kind === 'T') {
      const count = read.int32();
      read.int8();
      changes.push({ kind: 'TRUNCATE', relations: Array.from({ length: count }, () => relationOf(read.int32())) });
    }
  }
  return transactions;
}

type Reader = ReturnType<typeof reader>;

function reader(message: Buffer) {
  let at = 0;
  const skip = (bytes: number): number => (at += bytes) - bytes;
  return {
    letter: () => String.fromCharCode(message.readUInt8(skip(1))),
    int8: () => message.readUInt8(skip(1)),
    int16: () => message.readUInt16BE(skip(2)),
    int32: () => message.readUInt32BE(skip(4)),
    int64: () => message.readBigUInt64BE(skip(8)),
    text: (bytes: number) => message.toString('utf8', skip(bytes), at),
    string: () => {
      const end = message.indexOf(0, at);
      const text = message.toString('utf8', at, end);
      at = end + 1;
      return text;
    },
  };
}

function readRelation(read: Reader): StreamRelation {
  const [oid, schema, name, identity] = [read.int32(), read.string(), read.string(), read.letter()];
  const columns = Array.from({ length: read.int16() }, () => {
    const key = (read.int8() & 1) === 1;
    const column = { name: read.string(), key };
    read.int32(); // type
    read.int32(); // its modifier
    return column;
  });
  // The schema of the system is sent as an empty name.
  return { oid, schema: schema === '' ? 'pg_catalog' : schema, name, identity, columns };
}

const readRow = (read: Reader): Value[] =>
  Array.from({ length: read.int16() }, (): Value => {
    const kind = read.letter();
    if (kind === 'n') return 'null';
    return kind === 'u' ? 'unchanged' : { text: read.text(read.int32()) };
  });
