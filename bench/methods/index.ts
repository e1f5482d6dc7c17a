import { engine } from './engine.ts';
import { limit } from './limit.ts';
import type { Method } from './method.ts';
import { dump, replication } from './migration.ts';
import { pgDump, pgDumpPipe, pgDumpTuned } from './pg-dump.ts';
import { pgcopydb } from './pgcopydb.ts';
import { subscription } from './subscription.ts';

export type MethodName =
  'limit' | 'engine' | 'dump' | 'replication' | 'pgcopydb' | 'pg_dump-tuned' | 'pg_dump' | 'pipe' | 'subscription';

/** In the order of the report. */
export const METHODS: Readonly<Record<MethodName, Method>> = {
  limit,
  engine,
  dump,
  replication,
  pgcopydb,
  'pg_dump-tuned': pgDumpTuned,
  pg_dump: pgDump,
  pipe: pgDumpPipe,
  subscription,
};

/** What all others are compared with. */
export const REFERENCE: MethodName = 'pg_dump-tuned';
