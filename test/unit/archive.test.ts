import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { ArchiveEntry, ListedEntry } from '../../src/postgres/archive-script.ts';
import { isUnambiguous, splitScript } from '../../src/postgres/archive-script.ts';
import { programEnvironment } from '../../src/postgres/program-environment.ts';
import { findProgram } from '../../src/postgres/programs.ts';
import { alterRoleSettingSql, splitList } from '../../src/postgres/role.ts';
import type { IndexFact, StagingFacts } from '../../src/postgres/stage.ts';
import { stageEntry } from '../../src/postgres/stage.ts';

// eslint-disable-next-line @typescript-eslint/require-await -- a program's output comes as an async iterable
async function* pieces(text: string, size = 7): AsyncGenerator<string> {
  for (let i = 0; i < text.length; i += size) yield text.slice(i, i + size);
}

const listed = (dumpId: number, description: string, preData = true): ListedEntry => ({
  dumpId,
  classOid: 1259,
  oid: 16000 + dumpId,
  description,
  preData,
});

const header = (dumpId: number, title: string): string =>
  `--\n-- TOC entry ${dumpId} (class 1259 OID ${16000 + dumpId})\n-- Dependencies: 3\n-- Name: ${title}; Owner: o\n-- Data Pos: 0\n--\n\n`;

async function split(text: string, entries: ListedEntry[]): Promise<ArchiveEntry[]> {
  const found: ArchiveEntry[] = [];
  for await (const entry of splitScript(pieces(text), entries)) found.push(entry);
  return found;
}

describe('the script of an archive', () => {
  const entries = [
    listed(5, 'FUNCTION public f() o'),
    listed(6, 'TABLE DATA t o'),
    listed(7, 'INDEX public i o', false),
  ];
  const body = 'CREATE FUNCTION public.f() AS $$\n--\n-- TOC entry 7 (class 1259 OID 16007)\n$$;\n\n\n';
  const script =
    '\\restrict KEY\n\nSET row_security = off;\n\n' +
    header(5, 'f(); Type: FUNCTION; Schema: public') +
    `${body}SET default_tablespace = "fast disk";\n\nSET default_table_access_method = heap;\n\n` +
    header(6, 't; Type: TABLE; Schema: DATA') +
    'CREATE TABLE "DATA".t ();\n\n\nALTER TABLE "DATA".t OWNER TO o;\n\n' +
    "SET default_tablespace = '';\n\n" +
    header(7, 'i; Type: INDEX; Schema: public') +
    'CREATE INDEX i ON public.t;\n\n\n-- Completed on 2026-01-01\n\n--\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict KEY\n\n';

  test('is split where the header of the entry that is due next stands', async () => {
    const [f, t, i] = await split(script, entries);
    expect(f?.sql).toBe(`${body.trim()}\n`);
    expect(t?.sql).toBe('CREATE TABLE "DATA".t ();\n\n\nALTER TABLE "DATA".t OWNER TO o;\n');
    expect(i?.sql).toBe('CREATE INDEX i ON public.t;\n');
  });

  test('says of each entry which tablespace it wants, though the setting stands above its header', async () => {
    expect((await split(script, entries)).map(({ tablespace }) => tablespace)).toEqual([null, 'fast disk', null]);
  });

  test('says of each entry what it depends on', async () => {
    expect((await split(script, entries)).map(({ dependsOn }) => dependsOn)).toEqual([[3], [3], [3]]);
    const [t] = await split(header(6, 't; Type: TABLE; Schema: s').replace('3\n', '12 7\n'), [
      listed(6, 'TABLE s t o'),
    ]);
    expect(t?.dependsOn).toEqual([12, 7]);
  });

  test('tells a table in a schema called DATA from the data of a table', async () => {
    const [, t] = await split(script, entries);
    expect(t).toMatchObject({ kind: 'TABLE', schema: 'DATA', name: 't' });
  });

  test('is ambiguous when a body holds a header that is due elsewhere', async () => {
    expect(await isUnambiguous(pieces(script), entries)).toBe(false);
    expect(
      await isUnambiguous(pieces(script.replace('-- TOC entry 7 (class 1259 OID 16007)\n$$', '$$')), entries),
    ).toBe(true);
    expect(await isUnambiguous(pieces(header(5, 'x') + header(5, 'x')), entries.slice(0, 1))).toBe(true);
  });

  test('without the SQL of an entry is an error and not a shorter schema', async () => {
    await expect(split(script, [...entries, listed(8, 'VIEW public v o')])).rejects.toThrow('VIEW public v o');
  });
});

describe('the stage of an entry', () => {
  const base: ArchiveEntry = {
    ...listed(9, ''),
    kind: 'TABLE',
    schema: 'public',
    name: 't',
    dependsOn: [],
    sql: 'CREATE TABLE public.t ();\n',
    tablespace: null,
    accessMethod: null,
  };
  const facts: StagingFacts = {
    indexes: new Map(),
    foreignKeys: new Map(),
    triggerClones: new Set(),
    excludedExtensions: ['hstore'],
    privileges: true,
    tablespaces: new Set(['fast']),
    tables: new Set([3, 5]),
  };
  const key: IndexFact = {
    relation: 42,
    definition: 'CREATE UNIQUE INDEX k ON public.t USING btree (a)',
    constraint: {
      schema: 'public',
      table: 't',
      name: 'k',
      index: 'k',
      clause: 'UNIQUE USING INDEX %INDEX% DEFERRABLE',
    },
    unusual: false,
  };
  const keySql =
    'ALTER TABLE ONLY public.t\n    ADD CONSTRAINT k UNIQUE (a) DEFERRABLE;\n\nALTER TABLE public.t CLUSTER ON k;\n';
  const constraint = { ...base, classOid: 2606, kind: 'CONSTRAINT', name: 't k', preData: false, sql: keySql };
  const stages = (entry: ArchiveEntry, more: Partial<StagingFacts> = {}) =>
    stageEntry(entry, { ...facts, ...more }).map(({ stage, sql }) => [stage, sql]);

  test.each([
    ['TABLE', [1, 3], [9, 3]],
    ['TABLE', [], [9]],
    ['FK CONSTRAINT', [3, 8, 5], [9, 3, 5]],
    ['COMMENT', [5], [9, 5]],
    ['COMMENT', [1], null],
    ['DEFAULT', [], null],
    ['VIEW', [3], null],
  ])('%s that depends on %j touches %j', (kind, dependsOn, touches) => {
    const entry = { ...base, kind, dependsOn, classOid: 0, description: kind };
    expect(stageEntry(entry, facts)).toMatchObject([{ touches }]);
  });

  test('of a key is an index built beside others, then a constraint that takes it', () => {
    expect(stages(constraint, { indexes: new Map([[base.oid, key]]) })).toEqual([
      ['index', 'CREATE UNIQUE INDEX k ON public.t USING btree (a);\n'],
      [
        'key',
        'ALTER TABLE ONLY "public"."t"\n    ADD CONSTRAINT "k" UNIQUE USING INDEX "k" DEFERRABLE;\n\nALTER TABLE public.t CLUSTER ON k;\n',
      ],
    ]);
  });

  test('of an unusual key is one statement, pg_dump’s own', () => {
    expect(stages(constraint, { indexes: new Map([[base.oid, { ...key, unusual: true }]]) })).toEqual([
      ['key', keySql],
    ]);
  });

  test('of an index leaves what locks the table out for later', () => {
    const index = {
      relation: 42,
      definition: 'CREATE INDEX i ON public.t USING btree (a)',
      constraint: null,
      unusual: false,
    };
    const sql = `${index.definition};\nALTER TABLE public.t CLUSTER ON i;\n`;
    const entry = { ...base, kind: 'INDEX', name: 'i', preData: false, sql };
    expect(stages(entry, { indexes: new Map([[base.oid, index]]) })).toEqual([
      ['index', `${index.definition};\n`],
      ['key', 'ALTER TABLE public.t CLUSTER ON i;\n'],
    ]);
    expect(stages(entry)).toEqual([['post', sql]]);
  });

  test('of what would hit our own sessions is the last', () => {
    const last = [
      { ...base, kind: 'EVENT TRIGGER', schema: null, name: 'e' },
      { ...base, kind: 'COMMENT', schema: null, name: 'EVENT TRIGGER e' },
      { ...base, kind: 'DATABASE PROPERTIES', schema: null, name: 'd' },
      { ...base, kind: 'ACL', schema: null, name: 'DATABASE d' },
    ];
    expect(last.map((entry) => stages(entry)[0]?.[0])).toEqual(['last', 'last', 'last', 'last']);
    expect(stages({ ...base, kind: 'ACL', name: 'TABLE "DATABASE d"' })[0]?.[0]).toBe('post');
  });

  test('does not exist for what is carried otherwise or not at all', () => {
    const left = [
      { ...base, kind: 'DATABASE', schema: null },
      { ...base, kind: 'SUBSCRIPTION', schema: null },
      { ...base, kind: 'PUBLICATION', schema: null, name: 'pgtransit_0123456789ab_g0' },
      { ...base, kind: 'PUBLICATION TABLE', name: 'pgtransit_0123456789ab_g0 t' },
      { ...base, kind: 'EXTENSION', schema: null, name: 'hstore' },
      { ...base, kind: 'COMMENT', schema: null, name: 'EXTENSION hstore' },
    ];
    expect(left.flatMap((entry) => stages(entry))).toEqual([]);
    expect(stages({ ...base, kind: 'PUBLICATION', schema: null, name: 'pgtransit_backup' })).toHaveLength(1);
  });

  test('keeps the tablespace where the target has it', () => {
    expect(stages({ ...base, tablespace: 'fast' })).toEqual([
      ['pre', `SET LOCAL default_tablespace = "fast";\n${base.sql}SET LOCAL default_tablespace = '';\n`],
    ]);
    expect(stages({ ...base, tablespace: 'gone' })).toEqual([['pre', base.sql]]);
  });
});

describe('a setting of a role', () => {
  test('that is a list stays a list', () => {
    expect(splitList('awk, "Weird, Schema ""x""", public')).toEqual(['awk', 'Weird, Schema "x"', 'public']);
    expect(alterRoleSettingSql('r', 'search_path="$user", public')).toBe(
      `ALTER ROLE "r" SET "search_path" TO '$user', 'public'`,
    );
    expect(alterRoleSettingSql('r', 'search_path=""')).toBe(`ALTER ROLE "r" SET "search_path" TO ''`);
  });

  test('that is no list stays one string', () => {
    expect(alterRoleSettingSql('r', "my.setting=a, 'b'=c")).toBe(`ALTER ROLE "r" SET "my.setting" TO 'a, ''b''=c'`);
  });
});

describe('a client program', () => {
  let root: string;
  const versions = { sourceVersion: 150000, targetVersion: 180002 };
  const fake = (name: string, version: string): string => {
    const directory = path.join(root, version);
    mkdirSync(directory, { recursive: true });
    const file = path.join(directory, name);
    writeFileSync(file, `#!/bin/sh\necho "${name} (PostgreSQL) ${version}"\n`);
    chmodSync(file, 0o755);
    return directory;
  };
  /** Nothing of this machine: majors for which nobody has programs. */
  const nowhere = { sourceVersion: 910000, targetVersion: 930000 };

  beforeEach(() => {
    root = mkdtempSync(path.join(tmpdir(), 'programs-'));
  });
  afterEach(() => rmSync(root, { recursive: true }));

  test('is of the target’s major where there is one, wherever it lies', async () => {
    const PGTRANSIT_PG_BIN = [fake('pg_dump', '91.4'), fake('pg_dump', '93.1'), fake('pg_dump', '94.0')].join(':');
    const program = await findProgram('pg_dump', nowhere, { PGTRANSIT_PG_BIN });
    expect(program).toMatchObject({ major: 93, path: path.join(root, '93.1', 'pg_dump') });
  });

  test('is of the source’s major when that is asked for', async () => {
    const PGTRANSIT_PG_BIN = [fake('pg_dump', '93.1'), fake('pg_dump', '91.4')].join(':');
    const program = await findProgram('pg_dump', { ...nowhere, preferSourceMajor: true }, { PGTRANSIT_PG_BIN });
    expect(program.major).toBe(91);
  });

  test('is the nearest between both, else a newer one, and never older than the source', async () => {
    const old = fake('pg_dump', '90.9');
    const between = [old, fake('pg_dump', '91.0'), fake('pg_dump', '92.1')].join(':');
    expect((await findProgram('pg_dump', nowhere, { PGTRANSIT_PG_BIN: between })).major).toBe(92);
    const newer = [old, fake('pg_dump', '95.1')].join(':');
    expect((await findProgram('pg_dump', nowhere, { PGTRANSIT_PG_BIN: newer })).major).toBe(95);
    await expect(findProgram('pg_dump', nowhere, { PGTRANSIT_PG_BIN: old, PATH: '' })).rejects.toMatchObject({
      type: 'ProgramMissing',
    });
  });

  test('that is missing is reported with every place that was looked at', async () => {
    const error: unknown = await findProgram('pg_dump', nowhere, { PATH: '/third' }).catch((reason: unknown) => reason);
    for (const place of ['.tools/pg93/bin', '/usr/lib/postgresql/93/bin', '/third'])
      expect(String(error)).toContain(place);
  });

  test('is looked for in the named directories and nowhere else', async () => {
    const elsewhere = fake('pg_dump', '93.1');
    const env = { PGTRANSIT_PG_BIN: `/first:${fake('pg_dump', '92.1')}`, PATH: elsewhere };
    expect((await findProgram('pg_dump', nowhere, env)).major).toBe(92);
    const error: unknown = await findProgram('pg_dump', nowhere, {
      PGTRANSIT_PG_BIN: '/first:/second',
      PATH: elsewhere,
    }).catch((reason: unknown) => reason);
    expect(String(error)).toContain('Looked in /first, /second.');
  });

  test('gets the password by its environment, and settings that every role may set', () => {
    const info = { host: 'h', user: 'u', password: 'sec ret', options: '-c geqo=off', sslmode: 'require' };
    const request = { database: 'My Db', version: versions.sourceVersion, applicationName: 'a' };
    const env = programEnvironment({ server: 'source', info }, request);
    expect(env).toMatchObject({
      PGHOST: 'h',
      PGUSER: 'u',
      PGPASSWORD: 'sec ret',
      PGSSLMODE: 'require',
      PGDATABASE: 'My Db',
    });
    expect(env['PGOPTIONS']).toMatch(/^-c geqo=off .*-c statement_timeout=0 .*-c DateStyle=ISO,\\ MDY/);
    expect(env['PGOPTIONS']).not.toContain('session_replication_role');
  });
});
