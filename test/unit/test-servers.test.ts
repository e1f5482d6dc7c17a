import { existsSync, mkdtempSync } from 'node:fs';
import path from 'node:path';
import { Client, Connection } from '@temporalio/client';
import pg from 'pg';
import { describe, expect, inject, it } from 'vitest';
import { startPostgres } from '../../lab/postgres-server.ts';
import { own } from '../../lab/processes.ts';
import { createDatabase, dropDatabase, useServer } from '../support/servers.ts';
import { startTemporalServer } from '../../lab/temporal-server.ts';
import { hasOldServers, pgVersion, testMajors, workDir } from '../../lab/tools.ts';

const scratch = mkdtempSync(path.join(workDir(), 'scratch-'));
own({ remove: [scratch] });

const newest = Math.max(...testMajors);

describe('a shared PostgreSQL server', () => {
  it.each(testMajors)('of major %i answers with its version', async (major) => {
    const server = await useServer(major);
    const version = await server.psql('postgres', 'SHOW server_version');
    expect(`${version}.0`).toBe(pgVersion(major));
  });

  it('takes databases of a test file, under any name', async () => {
    const server = await useServer(newest);
    const { name, uri } = await createDatabase(server.uri(), `Test "50%" +ü ${process.pid}`);
    expect(uri).toBe(server.uri(name));
    expect(await server.psql(name, 'SELECT current_database()')).toBe(name);
    await dropDatabase(server.uri(), name);
    expect(await server.psql('postgres', `SELECT count(*) FROM pg_database WHERE datname LIKE 'Test%'`)).toBe('0');
  });
});

describe('a PostgreSQL server of a test', () => {
  it('goes on with its data after a crash', async () => {
    const server = await startPostgres({ major: newest });
    const { pid, dataDir, port } = server;
    await server.psql('postgres', 'CREATE TABLE kept AS SELECT 42 AS answer; CHECKPOINT;');
    await server.kill();
    await expect(server.psql('postgres', 'SELECT 1')).rejects.toThrow('Connection refused');
    await server.start();
    expect(server).toMatchObject({ dataDir, port });
    expect(server.pid).not.toBe(pid);
    expect(await server.psql('postgres', 'SELECT answer FROM kept')).toBe('42');
    await server.remove();
    expect(existsSync(dataDir)).toBe(false);
  });

  it('waits with its restart for sessions that outlive a crash', async () => {
    const server = await startPostgres({ major: newest });
    const client = new pg.Client({ connectionString: server.uri() });
    client.on('error', () => undefined); // it will lose its connection
    await client.connect();
    const busy = client.query(`SELECT sum(i) FROM generate_series(1, 3000000) i`).catch(() => undefined);
    await server.kill();
    await server.start();
    expect(await server.psql('postgres', 'SELECT 1')).toBe('1');
    await busy;
    await server.remove();
  });

  it('has an identity of its own, like every other', async () => {
    const identity = 'SELECT system_identifier FROM pg_control_system()';
    const servers = [await useServer(newest), await useServer(newest, 'other')];
    const identities = await Promise.all(servers.map((server) => server.psql('postgres', identity)));
    expect(new Set(identities).size).toBe(2);
  });

  it.runIf(hasOldServers)(
    'of a major without client programs takes the newest psql, and has an identity too',
    async () => {
      const servers = await Promise.all([1, 2].map(() => startPostgres({ major: 10, auth: 'scram-sha-256' })));
      const asked = `SELECT system_identifier, current_setting('server_version') FROM pg_control_system()`;
      const answers = await Promise.all(servers.map((server) => server.psql('postgres', asked)));
      expect(new Set(answers).size).toBe(2);
      for (const answer of answers) expect(answer).toMatch(/^\d+\|10\./);
      await Promise.all(servers.map((server) => server.remove()));
    },
  );

  it('asks for passwords when told to, and takes settings', async () => {
    const settings = { application_name: "it's", max_slot_wal_keep_size: '64MB' };
    const server = await startPostgres({ major: newest, auth: 'scram-sha-256', password: 'a b/c', settings });
    expect(await server.psql('postgres', 'SHOW max_slot_wal_keep_size')).toBe('64MB');
    const wrong = new pg.Client({ connectionString: server.uri('postgres', { user: 'postgres', password: 'no' }) });
    await expect(wrong.connect()).rejects.toThrow('password authentication failed');
    await server.restart('immediate');
    expect(await server.psql('postgres', 'SELECT current_user')).toBe('postgres');
    await server.remove();
  });
});

describe('a Temporal server', () => {
  it('is shared by the run and knows the search attributes', async () => {
    const connection = await Connection.connect({ address: inject('temporalAddress') });
    const { customAttributes } = await connection.operatorService.listSearchAttributes({ namespace: 'default' });
    expect(Object.keys(customAttributes ?? {})).toEqual(
      expect.arrayContaining(['PgAttention', 'PgCluster', 'PgDatabase', 'PgMigrationPhase']),
    );
    await connection.close();
  });

  it('goes on with its workflows after a crash, on the same file', async () => {
    const server = await startTemporalServer({ dbFile: path.join(scratch, 'temporal.db') });
    const connection = await Connection.connect({ address: server.address });
    const client = new Client({ connection, namespace: server.namespace });
    await client.workflow.start('anything', { taskQueue: 'nobody', workflowId: 'kept' });
    await server.kill();
    await server.start();
    const description = await client.workflow.getHandle('kept').describe();
    expect(description.status.name).toBe('RUNNING');
    await connection.close();
    await server.stop();
  });
});
