import { createHash, createHmac, pbkdf2, randomBytes } from 'node:crypto';
import { promisify } from 'node:util';

/** What PostgreSQL uses itself (SCRAM_SHA_256_DEFAULT_ITERATIONS, since 10). */
const ITERATIONS = 4096;
const SALT_BYTES = 16;

const derive = promisify(pbkdf2);

/**
 * What a server stores of a password (RFC 5802 and 7677), for PASSWORD in its place, as psql's \password does: the
 * password itself is in no statement then, and so in nobody's log. `password`: ASCII, so that SASLprep leaves it alone.
 */
export async function scramVerifier(password: string): Promise<string> {
  const salt = randomBytes(SALT_BYTES);
  const salted = await derive(password, salt, ITERATIONS, 32, 'sha256');
  const keyed = (text: string) => createHmac('sha256', salted).update(text).digest();
  const stored = createHash('sha256').update(keyed('Client Key')).digest('base64');
  return `SCRAM-SHA-256$${ITERATIONS}:${salt.toString('base64')}$${stored}:${keyed('Server Key').toString('base64')}`;
}
