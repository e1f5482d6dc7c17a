import { describe, expect, it } from 'vitest';
import type { ColumnType } from '../../src/postgres/column-format.ts';
import { isBinaryStable } from '../../src/postgres/column-format.ts';

const type = (oid: number, name: string, kind: string, part: Partial<ColumnType> = {}): ColumnType => ({
  oid,
  name,
  kind,
  base: 0,
  element: 0,
  subtype: 0,
  ...part,
});

const TYPES = new Map(
  [
    type(23, 'int4', 'b'),
    type(1007, '_int4', 'b', { element: 23 }),
    type(2205, 'regclass', 'b'),
    type(2210, '_regclass', 'b', { element: 2205 }),
    type(790, 'money', 'b'),
    type(142, 'xml', 'b'),
    type(1033, 'aclitem', 'b'),
    type(3904, 'int4range', 'r', { subtype: 23 }),
    type(4451, 'int4multirange', 'm', { subtype: 23 }),
    type(20000, 'mood', 'e'),
    type(20001, '_mood', 'b', { element: 20000 }),
    type(20002, 'positive', 'd', { base: 23 }),
    type(20003, '_positive', 'b', { element: 20002 }),
    type(20004, 'numbers', 'd', { base: 1007 }),
    type(20005, 'place', 'd', { base: 2205 }),
    type(20006, 'cashrange', 'r', { subtype: 790 }),
    type(20007, 'hstore', 'b'),
    // A type of a user may have the name of a built-in one.
    type(20008, 'int4', 'b'),
    type(20009, 'pair', 'c'),
  ].map((each) => [each.oid, each]),
);

describe('the format of a column', () => {
  it.each([
    ['int4', 23],
    ['an array of it', 1007],
    ['a range of it', 3904],
    ['a multirange of it', 4451],
    ['a domain over it', 20002],
    ['a domain over its array', 20004],
    ['an enum, whose binary is its label', 20000],
  ])('is binary for %s', (_name, oid) => expect(isBinaryStable(oid, TYPES)).toBe(true));

  it.each([
    ['regclass, whose binary is an oid of the source', 2205],
    ['an array of it', 2210],
    ['a domain over it', 20005],
    ['money', 790],
    ['a range of money', 20006],
    ['xml', 142],
    ['aclitem', 1033],
    ['an array of an enum, which holds the oid of the enum', 20001],
    ['an array of a domain', 20003],
    ['a type of an extension', 20007],
    ["a user's type with the name of a built-in one", 20008],
    ['a composite', 20009],
    ['a type that is not known', 99999],
  ])('is text for %s', (_name, oid) => expect(isBinaryStable(oid, TYPES)).toBe(false));
});
