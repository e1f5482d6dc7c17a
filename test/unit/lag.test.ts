import { describe, expect, it } from 'vitest';
import { lsnBefore, sameLsn } from '../../src/postgres/lag.ts';

describe('a position so many bytes earlier', () => {
  it.each([
    ['0/1000', 0, '0/1000'],
    ['0/1000', 1, '0/fff'],
    // The lower half has 32 bits.
    ['1/0', 1, '0/ffffffff'],
    ['16/B374D848', 2 ** 32, '15/B374D848'],
    ['16/B374D848', 2 ** 33 + 0xb374d849, '13/FFFFFFFF'],
    // What is left of a byte is not to be waited for either.
    ['0/1000', 0.5, '0/FFF'],
  ])('than %s, by %d, is %s', (lsn, bytes, earlier) => {
    expect(sameLsn(lsnBefore(lsn, bytes), earlier)).toBe(true);
  });

  it('than the beginning is the beginning', () => {
    expect(lsnBefore('0/10', 17)).toBe('0/0');
    expect(lsnBefore('FFFFFFFF/0', Number.MAX_VALUE)).toBe('0/0');
  });
});
