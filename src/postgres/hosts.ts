import { MigrationError } from '../domain/failure.ts';
import type { ConnInfo } from './conninfo.ts';

/** One of the servers that a connection string names. */
export interface Host {
  /** As the certificate and the passfile name it. */
  host: string;
  /** Where to connect, when that is not to be looked up. */
  address: string | null;
  port: number;
}

/** In the order in which they are tried (manual, 34.1.1.3). */
export function hostsOf(info: ConnInfo): Host[] {
  const addresses = info['hostaddr']?.split(',') ?? [];
  const names = info['host']?.split(',') ?? addresses;
  const ports = (info['port'] ?? '').split(',');
  if ((addresses.length > 0 && addresses.length !== names.length) || ![1, names.length].includes(ports.length))
    throw new MigrationError(
      'InvalidPlan',
      `The connection string names ${names.length} hosts, but ${addresses.length || ports.length} ` +
        `${addresses.length > 0 && addresses.length !== names.length ? 'addresses' : 'ports'}.`,
    );
  const hosts = names.map((name, i) => ({
    host: name || addresses[i] || 'localhost',
    address: addresses[i] || null,
    port: Number(ports.length === 1 ? ports[0] : ports[i]) || 5432,
  }));
  return info['load_balance_hosts'] === 'random' ? shuffled(hosts) : hosts;
}

function shuffled<T>(items: readonly T[]): T[] {
  const keyed = items.map((item) => ({ item, key: Math.random() }));
  return keyed.sort((a, b) => a.key - b.key).map(({ item }) => item);
}

/** The same parameters, for this one of the hosts. */
export function onlyHost(info: ConnInfo, { host, address, port }: Host): ConnInfo {
  const decided = ['hostaddr', 'load_balance_hosts', 'target_session_attrs'];
  const rest = Object.fromEntries(Object.entries(info).filter(([key]) => !decided.includes(key)));
  return { ...rest, host, port: String(port), ...(address === null ? {} : { hostaddr: address }) };
}
