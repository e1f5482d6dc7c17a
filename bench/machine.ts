import { readFileSync } from 'node:fs';
import os from 'node:os';
import { pgcopydbVersion } from './methods/pgcopydb.ts';
import type { BenchOptions } from './options.ts';
import type { Servers } from './servers.ts';
import { SERVER_SETTINGS } from './servers.ts';

/** What the figures depend on, as sentences. */
export async function describeMachine({ source, target }: Servers, options: BenchOptions): Promise<string[]> {
  const version = (server: Servers['source']): Promise<string> => server.psql('postgres', 'SHOW server_version');
  const [from, to] = await Promise.all([version(source), version(target)]);
  const cores = os.availableParallelism();
  const settings = Object.entries(SERVER_SETTINGS).map(([name, value]) => `${name} = ${value}`);
  return [
    `PostgreSQL ${from} to ${to} over loopback, both on one machine with ${cores} cores (${os.cpus()[0]?.model.trim() ?? 'unknown'}), ` +
      `${Math.round(os.totalmem() / 2 ** 30)} GiB of memory, ${os.type()} ${os.release()}, Node ${process.versions.node}, ${pgcopydbVersion() ?? 'no pgcopydb'}.`,
    `Both servers: ${settings.join(', ')}; the rest as PostgreSQL has it.`,
    `${options.rounds} rounds, methods in turn; medians. Data at scale ${options.scale}, seed ${options.seed}.`,
    'Ratio: to the tuned pg_dump and pg_restore.',
  ];
}

/** Busy with something else: the figures of such a run mean little. Null when the machine is quiet. */
export function noise(): string | null {
  const [load = 0] = readFileSync('/proc/loadavg', 'utf8').split(' ').map(Number);
  const cores = os.availableParallelism();
  if (load < cores / 4) return null;
  return `The load of this machine is ${load} before anything was started: somebody else is using its ${cores} cores.`;
}
