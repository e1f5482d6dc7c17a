import { beforeAll, describe, expect, it } from 'vitest';
import { itCatches, SOUND, usePair } from './preflight-liars.ts';
import type { Servers } from './preflight-support.ts';
import { inspectCluster, withCode } from './preflight-support.ts';

let servers: Servers;
let newDatabase: (sql?: string) => Promise<string>;

beforeAll(async () => {
  ({ servers, newDatabase } = await usePair());
});

describe('table filters', () => {
  itCatches([
    {
      code: 'filter-matches-nothing',
      plan: { tables: { include: ['sound', 'public.nothing', 'otherdb.public.nothing'] } },
      objects: ['public.nothing'],
      says: /tables.include/,
    },
    {
      code: 'filter-matches-nothing',
      plan: { tables: { exclude: ['nothing'] } },
      objects: ['nothing'],
      severity: 'warning',
    },
    {
      code: 'foreign-key-excluded',
      broken: 'CREATE TABLE c (id int PRIMARY KEY, s int REFERENCES sound)',
      plan: { tables: { exclude: ['sound'] } },
      objects: ['public.c'],
      severity: 'warning',
    },
    {
      code: 'filter-partitioned',
      sound: `CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
        CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (id); CREATE TABLE parts_2a PARTITION OF parts_2 FOR VALUES FROM (10) TO (20)`,
      plan: { tables: { include: ['par*s', 'sound'] } },
      objects: ['public.parts'],
      severity: 'info',
      says: /names par\*s, a partitioned table; its 2 partitions are meant: public\.parts_1, public\.parts_2a\./,
    },
    {
      code: 'foreign-key-excluded',
      sound: `CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10)`,
      broken: 'CREATE TABLE c (id int PRIMARY KEY, p int REFERENCES parts)',
      plan: { tables: { exclude: ['parts'] } },
      objects: ['public.c'],
      severity: 'warning',
      says: /leads to public\.parts,/,
    },
  ]);

  it('count in what "maxTotalBytes" bounds', async () => {
    const database = await newDatabase(SOUND);
    const found = async (plan: object) =>
      withCode((await inspectCluster(servers, { databases: { include: [database] }, ...plan })).findings, 'size-limit');
    expect(await found({ maxTotalBytes: 0, tables: { exclude: ['*'] } })).toEqual([]);
    expect(await found({ maxTotalBytes: 100_000, tables: { include: ['sound'] } })).toEqual([]);
    expect((await found({ maxTotalBytes: 0, tables: { include: ['sound'] } }))[0]?.message).toBe(
      `The databases have 16.0 kB in all, more than the 0 bytes of "maxTotalBytes": "${database}" 16.0 kB.`,
    );
    expect(await found({ maxTotalBytes: 100_000 })).toMatchObject([{ severity: 'error' }]);
  });
});
