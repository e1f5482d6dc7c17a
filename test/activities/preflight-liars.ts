import { expect, it } from 'vitest';
import type { PostgresAccess } from '../../lab/postgres-access.ts';
import type { Finding } from '../../src/domain/finding.ts';
import { createDatabase, useServer } from '../support/servers.ts';
import type { PlanInput, Servers } from './preflight-support.ts';
import { inspectDatabase, withCode } from './preflight-support.ts';

export const REPLICATION = { method: 'replication' };
export const DUMP = { method: 'dump' };

export const SOUND = `CREATE TABLE sound (id int PRIMARY KEY, v text); INSERT INTO sound VALUES (1, 'a');
  CREATE TABLE "Mixed Case" ("Id" int PRIMARY KEY); CREATE SEQUENCE counter;`;

/** The shared servers of 17 and 18: what is done to them must stay within a database. */
export interface Pair {
  source: PostgresAccess;
  target: PostgresAccess;
  servers: Servers;
  newDatabase: (sql?: string) => Promise<string>;
}

export async function usePair(): Promise<Pair> {
  const [source, target] = [await useServer(17), await useServer(18)];
  const newDatabase = async (sql = ''): Promise<string> => {
    const { name } = await createDatabase(source.uri());
    if (sql !== '') await source.psql(name, sql);
    return name;
  };
  return { source, target, servers: { source: source.uri(), target: target.uri() }, newDatabase };
}

/** A check, and what must turn it red. */
export interface Liar {
  code: string;
  /** Before. */
  sound?: string;
  /** Done to the source; `%database%` is the database's name, here and below. */
  broken?: string;
  /** Done to a database of the same name on the target. */
  onTarget?: string;
  /** The objects that the findings name. */
  objects: (string | null)[];
  plan?: PlanInput;
  severity?: string;
  /** Part of the sentence. */
  says?: RegExp;
  remedy?: RegExp;
}

/** Every finding but the plan, which each database has. */
export const complaints = (findings: readonly Finding[]): Finding[] => findings.filter(({ code }) => code !== 'plan');

export function itCatches(liars: readonly Liar[]): void {
  it.concurrent.each(liars.map((liar, i) => [`${liar.code} ${i}`, liar] as const))(
    'once it is broken, says %s',
    async (_, { code, sound = '', broken, onTarget, objects, plan = {}, severity = 'error', says, remedy }) => {
      const { source, target, servers, newDatabase } = await usePair();
      const database = await newDatabase(`${SOUND} ${sound}`);
      const green = await inspectDatabase(servers, database, 'method' in plan ? { method: plan['method'] } : {});
      expect(withCode(green.findings, code).filter((finding) => finding.severity === severity)).toEqual([]);
      if (broken !== undefined) await source.psql(database, broken.replaceAll('%database%', database));
      if (onTarget !== undefined) {
        await createDatabase(target.uri(), database);
        await target.psql(database, onTarget.replaceAll('%database%', database));
      }
      const found = withCode((await inspectDatabase(servers, database, plan)).findings, code);
      const expected = objects.map((object) => object?.replace('%database%', database) ?? null);
      expect(found.map(({ object }) => object).sort()).toEqual(expected.sort());
      for (const finding of found) {
        expect(finding).toMatchObject({ severity, database });
        expect(finding.unknown).toBeUndefined();
        if (says !== undefined) expect(finding.message).toMatch(says);
        if (remedy !== undefined) expect(finding.remedy).toMatch(remedy);
      }
    },
  );
}
