import net from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import type { PostgresAccess } from '../../lab/postgres-access.ts';
import { useServer } from '../support/servers.ts';
import { errorsOf, inspectCluster, withCode } from './preflight-support.ts';

let source: PostgresAccess;
let another: PostgresAccess;
let target: PostgresAccess;

const proxies: net.Server[] = [];

beforeAll(async () => {
  [source, another, target] = await Promise.all([useServer(17), useServer(15), useServer(18)]);
});

afterEach(() => vi.unstubAllEnvs());
afterAll(() => proxies.forEach((proxy) => proxy.close()));

/** Leads its connections to these servers in turn, and may change what the server says first. */
async function startProxy(servers: PostgresAccess[], change = (data: Buffer) => data): Promise<string> {
  let turn = 0;
  const proxy = net.createServer((client) => {
    const server = net.connect(servers[turn++ % servers.length]?.port ?? 0, '127.0.0.1');
    for (const [from, to] of [
      [client, server],
      [server, client],
    ] as const) {
      from.on('data', (data) => to.write(from === server ? change(data) : data));
      from.on('close', () => to.destroy());
      from.on('error', () => to.destroy());
    }
  });
  proxies.push(proxy);
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  // Else each login takes two connections, the first one to ask for TLS.
  const uri = source.uri('postgres', { params: { sslmode: 'disable' } });
  return uri.replace(`:${source.port}/`, `:${(proxy.address() as net.AddressInfo).port}/`);
}

/** BackendKeyData: K, length 12, process id, key. A pooler has ids of its own. */
function otherPid(data: Buffer): Buffer {
  const at = data.indexOf(Buffer.from([0x4b, 0, 0, 0, 12]));
  if (at >= 0) data.writeInt32BE(data.readInt32BE(at + 5) + 1, at + 5);
  return data;
}

const SCOPE = { databases: { include: ['postgres'] } };
const codes = async (servers: { source: string; target: string }) =>
  errorsOf((await inspectCluster(servers, SCOPE)).findings).map(({ code, server }) => `${code} ${server}`);

describe('an address', () => {
  it('of a proxy that leads to one server is as good as that of the server', async () => {
    expect(await codes({ source: await startProxy([source]), target: await startProxy([target]) })).toEqual([]);
  });

  it('of a connection pooler is refused on either side', async () => {
    expect(await codes({ source: await startProxy([source], otherPid), target: target.uri() })).toContain(
      'pooler source',
    );
    expect(await codes({ source: source.uri(), target: await startProxy([target], otherPid) })).toContain(
      'pooler target',
    );
  });

  it('that leads to one server and then to another is refused on either side', async () => {
    const { findings } = await inspectCluster(
      { source: await startProxy([source, another]), target: target.uri() },
      SCOPE,
    );
    const [found] = withCode(findings, 'several-servers');
    expect(found).toMatchObject({ severity: 'error', server: 'source' });
    expect(found?.message).toMatch(
      new RegExp(`reached 2 different servers \\(127\\.0\\.0\\.1:${source.port}, 127\\.0\\.0\\.1:${another.port}\\)`),
    );
    const through = await startProxy([target, another]);
    expect(await codes({ source: source.uri(), target: through })).toContain('several-servers target');
  });
});

it('a worker without the client programs is refused, naming both', async () => {
  vi.stubEnv('PGTRANSIT_PG_BIN', '/nowhere/bin');
  const { findings } = await inspectCluster({ source: source.uri(), target: target.uri() }, SCOPE);
  expect(withCode(findings, 'program-missing')).toMatchObject([
    { severity: 'error', object: 'pg_dump', message: expect.stringMatching(/\/nowhere\/bin/) as string },
    { severity: 'error', object: 'pg_restore' },
  ]);
});
