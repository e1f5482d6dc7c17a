import type { KeyObject } from 'node:crypto';
import { generateKeyPairSync, randomBytes, sign } from 'node:crypto';

/** A certificate authority of a test, and what it issues: enough of X.509 (RFC 5280) for `sslmode=verify-full`. */
export interface Authority {
  /** PEM, for `sslrootcert`. */
  certificate: string;
  issue(commonName: string, hosts?: { names?: readonly string[]; addresses?: readonly string[] }): Issued;
}

export interface Issued {
  certificate: string;
  key: string;
}

export function makeAuthority(commonName = 'pgtransit test CA'): Authority {
  const ca = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const make = (subject: string, publicKey: KeyObject, extensions: Buffer[]): string =>
    pem(signed(ca.privateKey, toBeSigned(commonName, subject, publicKey, extensions)));
  return {
    certificate: make(commonName, ca.publicKey, [IS_AUTHORITY]),
    issue(subject, { names = [], addresses = [] } = {}) {
      const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
      const alternatives = [
        ...names.map((name) => der(0x82, Buffer.from(name))),
        ...addresses.map((address) => der(0x87, Buffer.from(address.split('.').map(Number)))),
      ];
      const extensions = alternatives.length === 0 ? [] : [extension('551d11', sequence(...alternatives))];
      return {
        certificate: make(subject, publicKey, extensions),
        key: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
      };
    },
  };
}

const DAY_MS = 24 * 3600 * 1000;

function toBeSigned(issuer: string, subject: string, key: KeyObject, extensions: readonly Buffer[]): Buffer {
  const version = der(0xa0, der(0x02, Buffer.from([2]))); // v3
  const serial = der(0x02, Buffer.concat([Buffer.from([1]), randomBytes(8)]));
  const validity = sequence(time(Date.now() - DAY_MS), time(Date.now() + 30 * DAY_MS));
  const publicKey = key.export({ type: 'spki', format: 'der' });
  const rest = extensions.length === 0 ? [] : [der(0xa3, sequence(...extensions))];
  return sequence(version, serial, ECDSA_SHA256, name(issuer), validity, name(subject), publicKey, ...rest);
}

function signed(key: KeyObject, content: Buffer): Buffer {
  const signature = der(0x03, Buffer.concat([Buffer.from([0]), sign('sha256', content, key)]));
  return sequence(content, ECDSA_SHA256, signature);
}

function pem(bytes: Buffer): string {
  const lines = bytes.toString('base64').match(/.{1,64}/g) ?? [];
  return ['-----BEGIN CERTIFICATE-----', ...lines, '-----END CERTIFICATE-----', ''].join('\n');
}

/** ASN.1's distinguished encoding: tag, length, content. */
function der(tag: number, content: Buffer): Buffer {
  const { length } = content;
  const bytes = length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...bytes]), content]);
}

const sequence = (...parts: Buffer[]): Buffer => der(0x30, Buffer.concat(parts));
const oid = (hex: string): Buffer => der(0x06, Buffer.from(hex, 'hex'));
const extension = (id: string, value: Buffer, critical: Buffer[] = []): Buffer =>
  sequence(oid(id), ...critical, der(0x04, value));
const time = (ms: number): Buffer =>
  der(
    0x17,
    Buffer.from(
      new Date(ms)
        .toISOString()
        .replace(/[-:T]|\.\d+/g, '')
        .slice(2),
    ),
  );
/** A commonName (2.5.4.3), and nothing else. */
const name = (text: string): Buffer => sequence(der(0x31, sequence(oid('550403'), der(0x0c, Buffer.from(text)))));

const ECDSA_SHA256 = sequence(oid('2a8648ce3d040302'));
const TRUE = der(0x01, Buffer.from([0xff]));
/** basicConstraints, critical: cA. */
const IS_AUTHORITY = extension('551d13', sequence(TRUE), [TRUE]);
