import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { own } from '../../lab/processes.ts';
import { configuredTarget, readTemporalTarget } from '../../src/temporal/connection.ts';

function home(): NodeJS.ProcessEnv {
  const directory = mkdtempSync(join(tmpdir(), 'pgtransit-home-'));
  own({ remove: [directory] });
  return { HOME: directory };
}

const EMPTY = {
  ...{ TEMPORAL_ADDRESS: '', TEMPORAL_NAMESPACE: '', TEMPORAL_API_KEY: '', TEMPORAL_TLS: '' },
  ...{ TEMPORAL_PROFILE: '', TEMPORAL_CONFIG_FILE: '', TEMPORAL_TLS_CLIENT_CERT_PATH: '' },
};

describe('where Temporal is', () => {
  test('says a variable, and the namespace too', () =>
    expect(configuredTarget({ ...home(), TEMPORAL_ADDRESS: 'there:7233', TEMPORAL_NAMESPACE: 'moves' })).toMatchObject({
      address: 'there:7233',
      namespace: 'moves',
    }));

  test('says nothing at all: then none is configured, and a worker looks where the Temporal CLI does', () => {
    expect(configuredTarget(home())).toBe(null);
    expect(readTemporalTarget(home())).toMatchObject({ address: '127.0.0.1:7233', namespace: 'default' });
  });

  test('is not said by variables that are empty, as compose files and scripts make them', () => {
    expect(configuredTarget({ ...home(), ...EMPTY })).toBe(null);
    expect(readTemporalTarget({ ...home(), ...EMPTY })).toEqual(readTemporalTarget(home()));
    expect(configuredTarget({ ...home(), ...EMPTY, TEMPORAL_ADDRESS: 'there:7233' })).toEqual(
      configuredTarget({ ...home(), TEMPORAL_ADDRESS: 'there:7233' }),
    );
  });

  test('says a profile of a file, unless the variable is empty', () => {
    const env = home();
    const file = join(env['HOME'] ?? '', 'temporal.toml');
    writeFileSync(file, '[profile.default]\naddress = "from-file:7233"\nnamespace = "moves"\n');
    const inFile = { ...env, TEMPORAL_CONFIG_FILE: file };
    expect(configuredTarget(inFile)).toMatchObject({ address: 'from-file:7233', namespace: 'moves' });
    expect(configuredTarget({ ...inFile, TEMPORAL_ADDRESS: '' })).toBe(null);
    expect(configuredTarget({ ...inFile, TEMPORAL_NAMESPACE: '' })).toMatchObject({ namespace: 'default' });
  });
});
