import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { makeAuthority } from '../../lab/certificates.ts';
import { temporalCliPath } from '../../src/temporal/cli-path.ts';
import type { Finding } from '../../src/domain/finding.ts';
import { createDatabase, dropDatabase, useServer } from '../support/servers.ts';
import type { Gateway, GatewayOptions } from '../support/temporal-gateway.ts';
import { startGateway } from '../support/temporal-gateway.ts';
import { pgtransit } from './command.ts';

const API_KEY = 'gehe!m-api-key';

const server = makeAuthority('server CA');
const clients = makeAuthority('client CA');
const gateways: Gateway[] = [];
let directory: string;
let source: { name: string; uri: string };
let targetUri: string;

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'pgtransit-access-'));
  source = await createDatabase((await useServer(17)).uri());
  targetUri = (await useServer(18)).uri();
});

afterAll(async () => {
  for (const gateway of gateways) gateway.close();
  rmSync(directory, { recursive: true });
  await dropDatabase((await useServer(17)).uri(), source.name);
});

/** Writes it where a variable or a profile can name it. */
function file(name: string, text: string): string {
  const path = join(directory, name);
  writeFileSync(path, text, { mode: 0o600 });
  return path;
}

async function gateway(options: Pick<GatewayOptions, 'apiKey' | 'clientAuthority'>): Promise<string> {
  const identity = server.issue('temporal.test', { addresses: ['127.0.0.1'] });
  const started = await startGateway({ upstream: inject('temporalAddress'), identity, ...options });
  gateways.push(started);
  return started.address;
}

/** Whether a migration's validation that the Temporal CLI starts with these variables is done by a worker with the same. */
async function works(env: NodeJS.ProcessEnv, taskQueue: string): Promise<void> {
  const servers = { SOURCE_SERVICE_URI: source.uri, TARGET_SERVICE_URI: targetUri };
  const worker = pgtransit(['worker', '--task-queue', taskQueue], { ...env, ...servers });
  try {
    await worker.says(/^ready: /m);
    const input = JSON.stringify({ databases: { include: [source.name] } });
    const start = ['workflow', 'execute', '--task-queue', taskQueue, '--type', 'validateCluster', '--input', input];
    const { stdout } = await promisify(execFile)(temporalCliPath(), [...start, '--output', 'json'], {
      env: { PATH: process.env['PATH'], HOME: directory, ...env },
    });
    const { result } = JSON.parse(stdout) as { result: { ok: boolean; findings: Finding[] } };
    expect(result.findings.filter(({ severity }) => severity === 'error')).toEqual([]);
    expect(result.ok).toBe(true);
    expect(worker.stdout + worker.stderr).not.toContain(API_KEY);
  } finally {
    worker.kill('SIGKILL');
    await worker.exitCode;
  }
}

const listOpen = async (env: NodeJS.ProcessEnv) => {
  const command = pgtransit(['list'], env);
  const code = await command.exitCode;
  expect(command.stdout + command.stderr).not.toContain(API_KEY);
  return { code, stderr: command.stderr };
};

describe('a Temporal server behind TLS', { timeout: 60_000 }, () => {
  it('that wants client certificates is reached by the variables of the Temporal CLI, and by no other client', async () => {
    const address = await gateway({ clientAuthority: clients.certificate });
    const { certificate, key } = clients.issue('worker');
    const env = {
      TEMPORAL_ADDRESS: address,
      TEMPORAL_TLS_SERVER_CA_CERT_PATH: file('server-ca.pem', server.certificate),
      TEMPORAL_TLS_CLIENT_CERT_PATH: file('client.pem', certificate),
      TEMPORAL_TLS_CLIENT_KEY_PATH: file('client.key', key),
    };
    await works(env, 'access-certificate');

    const stranger = server.issue('worker');
    const refused = await listOpen({
      ...env,
      TEMPORAL_TLS_CLIENT_CERT_PATH: file('stranger.pem', stranger.certificate),
      TEMPORAL_TLS_CLIENT_KEY_PATH: file('stranger.key', stranger.key),
    });
    expect(refused.code).toBe(1);
    expect(refused.stderr).toContain(`No connection to Temporal at ${address}`);
    const unknown = await listOpen({ ...env, TEMPORAL_TLS_SERVER_CA_CERT_PATH: file('ca.pem', clients.certificate) });
    expect(unknown.code).toBe(1);
    expect(unknown.stderr).toMatch(/No connection to Temporal at .*TEMPORAL_TLS/);
  });

  it('that wants an API key is reached by a profile of temporal.toml, and a wrong key is said to be wrong', async () => {
    const address = await gateway({ apiKey: API_KEY });
    const ca = JSON.stringify(file('key-ca.pem', server.certificate));
    const profile = (name: string, key: string) =>
      `[profile.${name}]\naddress = "${address}"\nnamespace = "default"\napi_key = "${key}"\n[profile.${name}.tls]\nserver_ca_cert_path = ${ca}\n`;
    const TEMPORAL_CONFIG_FILE = file('temporal.toml', profile('cloud', API_KEY) + profile('mistaken', `${API_KEY}-2`));
    await works({ TEMPORAL_CONFIG_FILE, TEMPORAL_PROFILE: 'cloud' }, 'access-key');

    const refused = await listOpen({ TEMPORAL_CONFIG_FILE, TEMPORAL_PROFILE: 'mistaken' });
    expect(refused.code).toBe(1);
    expect(refused.stderr).toMatch(/Temporal at .* refuses access: Request unauthorized\. Check TEMPORAL_API_KEY/);
  });
});
