import { describe, expect, test } from 'vitest';
import { parseTablePatterns } from '../../src/postgres/table-pattern.ts';

const matches = (text: string, database: string, schema: string, name: string): boolean =>
  parseTablePatterns([text]).every((pattern) => pattern.matches(database, schema, name));

describe('a table pattern', () => {
  test.each([
    ['orders', 'shop', 'public', 'orders', true],
    ['Orders', 'shop', 'public', 'orders', true],
    ['"Orders"', 'shop', 'public', 'orders', false],
    ['"Orders"', 'shop', 'public', 'Orders', true],
    ['sales.orders', 'shop', 'public', 'orders', false],
    ['shop.sales.orders', 'shop', 'sales', 'orders', true],
    ['other.sales.orders', 'shop', 'sales', 'orders', false],
    ['orders_*', 'shop', 'public', 'orders_2024', true],
    ['orders_?', 'shop', 'public', 'orders_12', false],
    ['"a.b"."c""d"', 'shop', 'a.b', 'c"d', true],
    ['"a*"', 'shop', 'public', 'abc', false],
    ['a+b', 'shop', 'public', 'aab', false],
  ])('%s against %s.%s.%s: %s', (text, database, schema, name, expected) => {
    expect(matches(text, database, schema, name)).toBe(expected);
  });

  test.each(['', 'a.', '.a', 'a.b.c.d', '"open', 'a b'])('%j is refused with a sentence', (text) => {
    expect(() => parseTablePatterns([text])).toThrow('is no table name');
  });
});
