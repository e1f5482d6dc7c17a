import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { PostgresServer } from '../../lab/postgres-server.ts';
import { startPostgres } from '../../lab/postgres-server.ts';
import { connect } from '../../src/postgres/connection.ts';
import { resolveReference } from '../../src/postgres/conninfo.ts';
import { createSubscription } from '../../src/postgres/subscription.ts';

let target: PostgresServer;

beforeAll(async () => {
  target = await startPostgres({ major: 18, settings: { log_min_messages: 'info' } });
  await target.psql('postgres', 'CREATE ROLE sub LOGIN; CREATE ROLE nobody_else LOGIN IN ROLE pg_create_subscription');
});

afterAll(() => target.remove());

test.each(['postgres', 'sub', 'nobody_else'])(
  'a subscription that %s cannot make leaves no password in the log of the target',
  async (user) => {
    const info = resolveReference(target.uri('postgres', { user }), {});
    const session = await connect({ server: 'target', info }, { applicationName: 'test' });
    const conninfo = "host=127.0.0.1 port=1 user=app password='hush it' dbname=shop";
    await expect(
      createSubscription(session, 'pgtransit_0123456789ab_g0', ['pgtransit_0123456789ab_g0'], conninfo),
    ).rejects.toMatchObject({
      code: expect.stringMatching(/^(08001|42501|08006)$/) as string,
    });
    await session.close();
    expect(readFileSync(target.logFile, 'utf8')).not.toContain('hush');
  },
);
