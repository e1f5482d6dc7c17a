import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, inject, test } from 'vitest';
import { own } from '../../lab/processes.ts';
import { useServer } from '../support/servers.ts';
import { pgtransit } from './command.ts';

interface Diagnosis {
  what: string;
  state: string;
  message: string;
}

async function doctor(env: NodeJS.ProcessEnv) {
  const home = mkdtempSync(join(tmpdir(), 'pgtransit-home-'));
  own({ remove: [home] });
  const command = pgtransit(['doctor', '--json'], { HOME: home, ...env });
  const code = await command.exitCode;
  const found = JSON.parse(command.stdout) as Diagnosis[];
  const state = (what: string) => found.find((diagnosis) => diagnosis.what.startsWith(what))?.state;
  return { code, state, stdout: command.stdout };
}

test('doctor finds nothing wrong where everything is there', async () => {
  const [source, target] = await Promise.all([useServer(17), useServer(18)]);
  const { code, state, stdout } = await doctor({
    TEMPORAL_ADDRESS: inject('temporalAddress'),
    SOURCE_SERVICE_URI: source.uri(),
    TARGET_SERVICE_URI: target.uri(),
  });
  expect(code, stdout).toBe(0);
  for (const what of ['Node', 'Temporal server', 'search attributes', 'source', 'target', 'pg_dump', 'pg_restore'])
    expect(state(what), what).toBe('ok');
  expect(state('workers')).toBe('warning');
  expect(stdout).toMatch(/PostgreSQL 17.*wal_level logical/);
});

test('doctor says what is wrong, without passwords, and what was not named', async () => {
  const { code, state, stdout } = await doctor({
    TEMPORAL_ADDRESS: '127.0.0.1:1',
    SOURCE_SERVICE_URI: 'postgres://app:hush-hush@127.0.0.1:1/db',
  });
  expect(code).toBe(1);
  expect(state('Temporal server')).toBe('problem');
  expect(state('source')).toBe('problem');
  expect(state('target')).toBe('unknown');
  expect(stdout).not.toContain('hush');
});

test('doctor looks at a server of its own where none is configured', async () => {
  const { state, stdout } = await doctor({});
  expect(state('Temporal CLI')).toBe('ok');
  expect(state('Temporal server'), stdout).toBe('ok');
  expect(stdout).toContain('Web UI http://127.0.0.1:');
});
