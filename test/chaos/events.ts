import type { Action } from './failpoints.ts';
import type { Random } from './random.ts';
import type { Remedy, Step } from './steps.ts';
import type { Heal } from './strikes.ts';
import { connect, crash, ddl, dropSlots, end, fillDisk, named, reset, useUp, writeAround } from './strikes.ts';
import type { World } from './world.ts';

/** Where an event strikes. */
export interface Scene {
  world: World;
  database: string;
  random: Random;
  /** Ends the migration as an operator does. */
  cancel: () => Promise<void>;
}

export interface EventKind {
  name: string;
  /** A replication survives it without anybody's help, once it has changed something. */
  mild: boolean;
  /** Default: any of the method. */
  steps?: readonly Step[];
  /** Steps that there are only after it. */
  leadsTo?: readonly Remedy[];
  /** Default: hold, so that it happens between two statements of the worker. */
  action?: Action;
  /** The failpoint where it strikes; default: any of the step. */
  failpoint?: string;
  /** Only on a source of this major. */
  sourceFrom?: number;
  /** It writes rows, which a dump would not have. */
  onlyReplication?: true;
  /** Only where the target's disk is a small one. */
  smallDisk?: true;
  /** What the failpoint does not do by itself. */
  strike?: (scene: Scene) => Promise<Heal | void>;
  /** The migration comes to its end while it lasts, and even after that it may do no harm. */
  hindersNobody?: true;
  /** Seconds until it is made good again. */
  lasts?: readonly [least: number, most: number];
}

const COPYING: readonly Step[] = ['copyTables', 'buildIndexes', 'verifyCopied'];
const WHILE_SLOT: readonly Step[] = [...COPYING, 'planCopy', 'sealCopy', 'restoreConstraints', 'createSubscription'];
const STREAMS: readonly Step[] = ['waitForCatchUp', 'streaming', 'waitForGate', 'waitForDrain', 'mark'];

export const EVENTS: readonly EventKind[] = [
  { name: 'kill worker', mild: true, action: 'kill' },
  {
    name: 'kill pg_dump',
    mild: true,
    action: 'kill-child',
    failpoint: 'copySchema/pg_dump#1:during',
    steps: ['copySchema'],
  },
  {
    name: 'stop worker',
    mild: true,
    strike: ({ world }) => {
      const worker = world.workers.awake();
      if (worker !== null) process.kill(worker.pid, 'SIGTERM');
      return Promise.resolve();
    },
  },
  {
    name: 'worker sleeps',
    mild: true,
    hindersNobody: true,
    lasts: [2, 20],
    strike: async ({ world }) => {
      const worker = world.workers.awake();
      if (worker === null) return;
      world.workers.pause(worker);
      await world.workers.ensure();
      return () => world.workers.wake(worker);
    },
  },
  {
    name: 'kill Temporal',
    mild: true,
    strike: async ({ world }) => {
      await world.temporal.kill();
      await world.temporal.start();
    },
  },
  {
    name: 'crash source',
    mild: true,
    leadsTo: ['closeGeneration', 'restoreForeignKeys'],
    strike: ({ world }) => crash(world.source),
  },
  { name: 'crash target', mild: true, strike: ({ world }) => crash(world.target) },
  {
    name: 'restart source',
    mild: true,
    leadsTo: ['closeGeneration', 'restoreForeignKeys'],
    strike: ({ world }) => world.source.server.restart('fast'),
  },
  { name: 'restart target', mild: true, strike: ({ world }) => world.target.server.restart('fast') },
  {
    name: 'end holder',
    leadsTo: ['closeGeneration', 'restoreForeignKeys'],
    mild: true,
    steps: [...COPYING, 'copySchema', 'planCopy', 'copySequences', 'sealCopy'],
    strike: async ({ world, database }) => void (await end(world.source.server, database, named('holder'))),
  },
  {
    name: 'end copy session',
    mild: true,
    steps: COPYING,
    strike: async ({ world, database, random }) =>
      void (await end(
        random.pick([world.source, world.target]).server,
        database,
        named(random.pick(['copy', 'index'])),
      )),
  },
  {
    name: 'end control sessions',
    mild: true,
    strike: async ({ world, database, random }) =>
      void (await end(random.pick([world.source, world.target]).server, database, named('control'))),
  },
  {
    name: 'end keep session',
    mild: true,
    steps: COPYING,
    strike: async ({ world, database }) => void (await end(world.source.server, database, named('keep'))),
  },
  {
    name: 'end apply worker',
    mild: true,
    steps: STREAMS,
    strike: async ({ world, database }) =>
      void (await end(world.target.server, database, `backend_type ~ '^logical replication.* worker'`)),
  },
  {
    name: 'end walsender',
    mild: true,
    steps: STREAMS,
    strike: async ({ world, database }) =>
      void (await end(world.source.server, database, `backend_type = 'walsender'`)),
  },
  {
    name: 'drop connections',
    mild: true,
    strike: ({ world, random }) => {
      for (const side of random.pick([[world.source], [world.target], [world.source, world.target]])) side.proxy.drop();
      return Promise.resolve();
    },
  },
  {
    name: 'refuse connections',
    mild: true,
    lasts: [1, 4],
    strike: ({ world, random }) => {
      const { proxy } = random.pick([world.source, world.target]);
      proxy.refuse(true);
      proxy.drop();
      return Promise.resolve(() => proxy.refuse(false));
    },
  },
  {
    name: 'stall network',
    mild: true,
    lasts: [4, 12],
    strike: ({ world, random }) => {
      const { proxy } = random.pick([world.source, world.target]);
      proxy.stall(true);
      return Promise.resolve(() => {
        proxy.drop();
        proxy.stall(false);
      });
    },
  },
  { name: 'disk full', mild: false, smallDisk: true, lasts: [2, 5], strike: ({ world }) => fillDisk(world.target) },
  {
    name: 'source lets nobody in',
    leadsTo: ['unfence', 'enableSubscriptions'],
    mild: false,
    lasts: [1, 4],
    strike: async ({ world, database }) => {
      const { server } = world.source;
      await server.psql('postgres', `ALTER DATABASE ${database} ALLOW_CONNECTIONS false`);
      await end(server, database, `${named('%')} AND NOT ${named('holder')}`);
      return async () => void (await server.psql('postgres', `ALTER DATABASE ${database} ALLOW_CONNECTIONS true`));
    },
  },
  { name: 'connections used up on source', mild: true, lasts: [1, 4], strike: ({ world }) => useUp(world.source) },
  { name: 'connections used up on target', mild: true, lasts: [1, 4], strike: ({ world }) => useUp(world.target) },
  {
    name: 'old transaction',
    mild: true,
    onlyReplication: true,
    lasts: [2, 4],
    steps: ['openSnapshot', 'copyTables', 'waitForGate'],
    strike: async ({ world, database }) => {
      const client = await connect(world.source.server, database);
      await client.query(`BEGIN; INSERT INTO keyless VALUES (98, 'late')`);
      return async () => {
        await client.query('COMMIT').catch(() => undefined);
        await client.end().catch(() => undefined);
      };
    },
  },
  {
    name: 'prepared transaction',
    mild: true,
    onlyReplication: true,
    lasts: [2, 4],
    steps: ['openSnapshot', 'copyTables', 'streaming', 'waitForGate'],
    strike: async ({ world, database }) => {
      const { server } = world.source;
      await server.psql(database, `BEGIN; INSERT INTO keyless VALUES (99, 'prepared'); PREPARE TRANSACTION 'chaos'`);
      return async () => void (await server.psql(database, `COMMIT PREPARED 'chaos'`));
    },
  },
  {
    name: 'slot loses its WAL',
    leadsTo: ['closeGeneration', 'undo'],
    mild: false,
    lasts: [0, 1],
    steps: [...WHILE_SLOT, ...STREAMS],
    strike: async ({ world, database }) => {
      const { server } = world.source;
      await server.psql('postgres', `ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'; SELECT pg_reload_conf()`);
      for (let segment = 0; segment < 3; segment += 1)
        await server.psql(
          database,
          `SELECT pg_logical_emit_message(false, 'chaos', repeat('x', 100000)); SELECT pg_switch_wal()`,
        );
      await server.psql(database, 'CHECKPOINT');
      return () => reset(server, 'max_slot_wal_keep_size');
    },
  },
  {
    name: 'slot was idle',
    mild: false,
    sourceFrom: 18,
    lasts: [2, 2],
    steps: [...WHILE_SLOT, ...STREAMS],
    strike: async ({ world }) => {
      const { server } = world.source;
      await server.psql('postgres', `ALTER SYSTEM SET idle_replication_slot_timeout = '1s'; SELECT pg_reload_conf()`);
      return async () => {
        await server.psql('postgres', 'CHECKPOINT');
        await reset(server, 'idle_replication_slot_timeout');
      };
    },
  },
  {
    name: 'drop slot',
    leadsTo: ['closeGeneration', 'undo'],
    mild: false,
    steps: [...WHILE_SLOT, ...STREAMS, 'walAfterMark'],
    strike: ({ world, database }) => dropSlots(world.source, database),
  },
  {
    name: 'rewrite a table',
    leadsTo: ['closeGeneration', 'restoreForeignKeys'],
    mild: true,
    steps: ['openSnapshot', 'copySchema', 'planCopy', 'copyTables', 'verifyCopied', 'sealCopy'],
    strike: ({ world, database }) => ddl(world.source.server, database, 'VACUUM FULL big'),
  },
  {
    name: 'truncate a table',
    mild: true,
    steps: ['openSnapshot', 'copySchema', 'planCopy', 'copyTables', 'verifyCopied', 'sealCopy', 'streaming'],
    strike: ({ world, database }) => ddl(world.source.server, database, 'TRUNCATE log'),
  },
  {
    name: 'write behind the fence',
    mild: false,
    onlyReplication: true,
    leadsTo: ['unfence', 'enableSubscriptions'],
    steps: ['walAfterMark'],
    failpoint: 'walAfterMark@1:before',
    strike: ({ world, database }) => writeAround(world.source.server, database),
  },
  {
    name: 'write behind the fence of the target',
    mild: false,
    onlyReplication: true,
    leadsTo: ['unfenceTarget', 'enableReverse'],
    steps: ['closeBack'],
    failpoint: 'closeBack@1:before',
    strike: ({ world, database }) => writeAround(world.target.server, database),
  },
  { name: 'cancel', mild: false, leadsTo: ['undo'], strike: ({ cancel }) => cancel() },
];
