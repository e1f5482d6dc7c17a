/**
 * Database and role settings reach every session, so what matters is set by each session itself. `row_security = off`
 * makes a policy that hides rows an error; libpq-style dates and floats make text comparable between two servers.
 */
const PINNED: Readonly<Record<string, string>> = {
  // A step that is over is not done again, so what it did must outlive a crash of the server, whatever its default is.
  synchronous_commit: 'on',
  statement_timeout: '0',
  lock_timeout: '0',
  idle_in_transaction_session_timeout: '0',
  default_transaction_read_only: 'off',
  default_transaction_isolation: 'read committed',
  default_transaction_deferrable: 'off',
  search_path: '',
  standard_conforming_strings: 'on',
  DateStyle: 'ISO, MDY',
  IntervalStyle: 'postgres',
  TimeZone: 'UTC',
  extra_float_digits: '3',
  bytea_output: 'hex',
  xmloption: 'content',
  row_security: 'off',
  synchronize_seqscans: 'off',
  session_replication_role: 'origin',
  tcp_keepalives_idle: '30',
  tcp_keepalives_interval: '10',
  tcp_keepalives_count: '3',
};

/** Settings that came later, with the first version (server_version_num) that knows them. */
const PINNED_SINCE: readonly (readonly [number, string, string])[] = [
  [120000, 'tcp_user_timeout', '60s'],
  [140000, 'idle_session_timeout', '0'],
  // How soon a backend in a long command notices that its client is gone; the lock of a dead lane lives that long.
  [140000, 'client_connection_check_interval', '2s'],
  [170000, 'transaction_timeout', '0'],
];

/** Only a superuser may set it; without it, a trigger on a DDL or role change of ours is the same for everybody. */
const SUPERUSER_ONLY = new Set(['session_replication_role']);

/** The same settings as one string of SET commands, e.g. for a program that is given PGOPTIONS. */
export function pinnedSettings(version: number): Record<string, string> {
  const later = PINNED_SINCE.filter(([since]) => version >= since).map(([, name, value]) => [name, value] as const);
  return { ...PINNED, ...Object.fromEntries(later) };
}

/** As SQL, for a session that was just opened. */
export function pinSettings(version: number, more: Readonly<Record<string, string>>): string {
  const literal = (value: string) => `'${value.replaceAll("'", "''")}'`;
  return Object.entries({ ...pinnedSettings(version), ...more })
    .map(([name, value]) =>
      SUPERUSER_ONLY.has(name)
        ? // One statement, so that a walsender takes it too, and no error for those who may not.
          `SELECT CASE WHEN current_setting('is_superuser')::bool THEN pg_catalog.set_config(${literal(name)}, ${literal(value)}, false) END`
        : `SET ${name} = ${literal(value)}`,
    )
    .join('; ');
}
