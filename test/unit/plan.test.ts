import { describe, expect, test } from 'vitest';
import { parsePlan } from '../../src/domain/plan.ts';

describe('parsePlan', () => {
  test('gives every field its default when nothing is said', () => {
    expect(parsePlan(undefined)).toEqual(parsePlan({}));
    expect(parsePlan({})).toEqual({
      source: 'env:SOURCE_SERVICE_URI',
      target: 'env:TARGET_SERVICE_URI',
      sourceForTarget: null,
      databases: { include: [], exclude: [] },
      tables: { include: [], exclude: [] },
      roles: { exclude: [], passwords: 'copy' },
      extensions: { exclude: [], tables: true },
      method: 'auto',
      createDatabases: true,
      owners: true,
      privileges: true,
      maxTotalBytes: null,
      allowOlderTarget: false,
      stop: { when: 'signal', maxLagBytes: 0, fence: 'none', pgbouncer: null, awaitSwitch: false, deadlineSeconds: 60 },
      reverse: false,
      snapshot: { maxSeconds: null, maxXidAge: null, maxDeadTuples: null, rangeBytes: null },
      retainedWal: { warnBytes: 10_000_000_000, maxBytes: null },
      onError: 'park',
      verify: 'copied',
      parallelism: { databases: 2, copy: 4, index: 2 },
    });
  });

  test.each([
    [{ sauce: 1 }, 'The plan has no field "sauce".'],
    [{ stop: { when: 'now' } }, 'The plan\'s field "stop.when" must be ("signal" | "caught-up"), but it is "now".'],
    [{ parallelism: { copy: 0 } }, 'The plan\'s field "parallelism.copy" must be >=1, but it is 0.'],
    [{ databases: { include: 'shop' } }, 'The plan\'s field "databases.include" must be Array, but it is "shop".'],
    [[1], 'must be one JSON object'],
    ['x', 'must be one JSON object'],
    [{ databases: { include: ['a'], exclude: ['a'] } }, 'nothing would be migrated'],
    [{ method: 'dump', snapshot: { maxSeconds: 60 } }, 'a dump must be of one snapshot'],
    [
      { source: 'host' },
      'The plan\'s field "source" must be env:NAME, service:NAME or a postgres:// URI without a password.',
    ],
  ])('refuses %j with a sentence', (input, sentence) => {
    expect(() => parsePlan(input)).toThrow(sentence);
  });

  test('names every mistake at once', () => {
    expect(() => parsePlan({ a: 1, method: 'magic' })).toThrow(/"a".*"method"|"method".*"a"/s);
  });

  test.each([
    'postgres://u:hush@h/db',
    'postgresql://u:hu%40sh@h1,h2/db',
    'postgres://u@h/db?password=hush',
    'host=h user=u password=hush',
    "host=h password = 'hush'",
    'postgres://:hush@h/db',
  ])('refuses a password in %s without repeating it', (source) => {
    let message = '';
    try {
      parsePlan({ source });
    } catch (error) {
      message = error instanceof Error ? error.message : '';
    }
    expect(message).toContain('holds a password');
    expect(message).not.toContain('hush');
  });

  test.each(['env:X', 'service:blue', 'postgres://u@h:5432/db?sslmode=require', 'host=h user=u'])(
    'takes %s',
    (source) => {
      expect(parsePlan({ source }).source).toBe(source);
    },
  );
});
