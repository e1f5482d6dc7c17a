import { accessSync, constants } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import { MigrationError } from '../domain/failure.ts';
import type { Plan } from '../domain/plan.ts';
import { parsePlan } from '../domain/plan.ts';
import { parseTablePatterns } from '../postgres/table-pattern.ts';
import type { PgFlags } from './pg-flags.ts';
import { flagsOf } from './pg-flags.ts';
import type { PgServers } from './pg-servers.ts';
import { readServers, requireReachableSource } from './pg-servers.ts';
import { UsageError } from './usage-error.ts';

/** What `pgtransit pg` was asked to do, read from flags and environment. Only `servers` may hold passwords. */
export interface PgOptions {
  mode: 'migrate' | 'validate';
  /** Its servers are `local:source`, `local:target` and `local:source-for-target`. */
  plan: Plan;
  servers: PgServers;
  stopReplication: boolean;
  /** Bytes; null: nobody asked to wait for it. */
  maxReplicationLag: number | null;
  again: boolean;
  detach: boolean;
  json: boolean;
  yes: boolean;
  debug: boolean;
  verbose: boolean;
  showPasswords: boolean;
  reportFile: string | null;
  migrationId: string | null;
  pgbin: string | null;
  stateDir: string | null;
  /** What was accepted without an effect, as sentences to print. */
  notes: string[];
}

/**
 * Reads the flags of a `pg` command that was parsed.
 * @throws UsageError with one sentence for what is missing or contradicts itself
 */
export function readPgOptions(command: Command, env: NodeJS.ProcessEnv): PgOptions {
  const flags = flagsOf(command);
  refuseContradictions(flags);
  const servers = readServers(flags, env);
  const plan = readPlan(flags, servers);
  requireReachableSource(servers, plan.method, env);
  const { stopReplication, again, detach, json, yes, debug, verbose, showPasswords } = flags;
  return {
    mode: flags.validate ? 'validate' : 'migrate',
    plan,
    servers,
    stopReplication,
    maxReplicationLag: lagOf(flags),
    ...{ again, detach, json, yes, debug, verbose, showPasswords },
    reportFile: flags.reportFile ?? null,
    migrationId: flags.migrationId ?? null,
    pgbin: flags.pgbin === undefined ? null : requirePrograms(flags.pgbin),
    stateDir: flags.stateDir ?? (env['PGTRANSIT_STATE_DIR'] || null),
    notes: flags.mangle ? ['-m/--mangle is needless: database names of any length and spelling work.'] : [],
  };
}

/**
 * What this process, and one that carries the migration on in the background, must have in its environment: options
 * that are about the process and not about the migration. Passwords are not among them.
 */
export function processEnvironment({ debug, verbose, migrationId, pgbin }: PgOptions): Record<string, string> {
  return {
    ...(debug && { PGTRANSIT_DEBUG: '1', PGTRANSIT_LOG_LEVEL: 'debug' }),
    ...(verbose && { PGTRANSIT_VERBOSE: '1' }),
    ...(migrationId !== null && { PGTRANSIT_LOG_LABEL: migrationId }),
    ...(pgbin !== null && { PGTRANSIT_PG_BIN: pgbin }),
  };
}

function readPlan(flags: PgFlags, servers: PgServers): Plan {
  try {
    for (const tables of [flags.withTable, flags.skipTable]) parseTablePatterns(tables);
    return parsePlan({
      source: 'local:source',
      target: 'local:target',
      sourceForTarget: servers.sourceForTarget === null ? null : 'local:source-for-target',
      databases: { exclude: flags.filteredDb },
      tables: { include: flags.withTable, exclude: flags.skipTable },
      roles: { exclude: flags.excludedRoles },
      extensions: { exclude: flags.excludedExtensions, tables: flags.replicateExtensionTables },
      method: flags.forceMethod,
      createDatabases: flags.createdb,
      owners: flags.owner,
      privileges: flags.privileges,
      maxTotalBytes: flags.dbsMaxTotalSize < 0 ? null : flags.dbsMaxTotalSize,
      allowOlderTarget: flags.skipDbVersionCheck,
      stop: {
        when: flags.stopReplication ? 'caught-up' : 'signal',
        maxLagBytes: lagOf(flags) ?? 0,
        fence: flags.fence ?? 'none',
      },
      parallelism: {
        ...(flags.jobs !== undefined && { copy: flags.jobs }),
        ...(flags.indexJobs !== undefined && { index: flags.indexJobs }),
      },
    });
  } catch (error) {
    throw error instanceof MigrationError ? new UsageError(error.message, { cause: error }) : error;
  }
}

const lagOf = ({ maxReplicationLag: lag }: PgFlags): number | null => (lag === undefined || lag < 0 ? null : lag);

function refuseContradictions(flags: PgFlags): void {
  const { maxReplicationLag: lag, forceMethod: method } = flags;
  const problems = [
    [
      flags.stopReplication && lag !== undefined && lag < 0,
      '--stop-replication needs a --max-replication-lag of 0 or more; leave it out for 0.',
    ],
    [
      flags.fence !== undefined && (method === 'dump' || method === 'schema-only'),
      '--fence belongs to the end of a replication, and --force-method rules that out.',
    ],
    [flags.validate && flags.detach, '--validate answers in seconds, so it cannot be combined with --detach.'],
    [flags.showPasswords && flags.detach, '--show-passwords needs somebody to show them to, so --detach rules it out.'],
  ] as const;
  for (const [found, sentence] of problems) if (found) throw new UsageError(sentence);
}

/** Both, since one without the other is found out only when half of the work is done. */
function requirePrograms(directory: string): string {
  for (const program of ['pg_dump', 'pg_restore']) {
    try {
      accessSync(join(directory, program), constants.X_OK);
    } catch (error) {
      throw new UsageError(`--pgbin names ${directory}, where no ${program} can be started.`, { cause: error });
    }
  }
  return directory;
}
