import { MigrationError } from '../domain/failure.ts';
import type { FailureType } from '../domain/failure.ts';

interface ServerErrorFields {
  message: string;
  code?: string;
  detail?: string;
  hint?: string;
  where?: string;
  schema?: string;
  table?: string;
}

/** What was being done, for the sentence: "While copying public.t on the source: …". */
export interface ErrorContext {
  server: 'source' | 'target';
  doing: string;
  object?: string | null;
  /** Type for an error of the server that waiting cannot mend and that has no type of its own. */
  otherwise?: FailureType;
}

/** Node's own network errors, and what `pg` says when a connection ends under it. */
const NETWORK =
  /ECONN|ENOTFOUND|EAI_AGAIN|ETIMEDOUT|EPIPE|EHOSTUNREACH|ENETUNREACH|Connection terminated|timeout expired|Client was closed|not queryable|socket/i;

/** SQLSTATE classes and codes (PostgreSQL manual, appendix A), first match wins. */
const TYPES: readonly (readonly [RegExp, FailureType])[] = [
  [/^(08|57P0[1-5])/, 'ConnectionFailed'],
  [/^28/, 'AuthenticationFailed'],
  [/^42501$/, 'PrivilegeMissing'],
  // 53100 is a full disk: waiting does not mend it, so it is not in this line.
  [/^(53[023]00|53400|55P03|55006|40P01|40001|57014|25P0[34])$/, 'ServerBusy'],
];

export const sqlstateOf = (error: unknown): string | null => {
  // A system error's code may look like one: EPIPE.
  const code = error instanceof Error && !('syscall' in error) ? (error as Error & { code?: unknown }).code : undefined;
  return typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code) ? code : null;
};

/** Passwords that a message may carry: in a URI, or as password=… of a conninfo. */
export const redact = (text: string): string =>
  text
    .replace(/(postgres(?:ql)?:\/\/[^:@/\s]*):[^@/\s]*@/g, '$1:***@')
    .replace(/(password\s*=\s*)('(?:[^'\\]|\\.|'')*'|[^\s']+)/gi, '$1***')
    .replace(/(PASSWORD\s+)'(?:[^']|'')*'/g, "$1'***'");

/** The one way from an error of `pg` or of the network to one of ours. An error that is already ours stays as it is. */
export function toMigrationError(error: unknown, context: ErrorContext): MigrationError {
  if (error instanceof MigrationError) return error;
  const fields = error as ServerErrorFields;
  const sqlstate = sqlstateOf(error);
  const reason = redact(error instanceof Error ? describe(fields) : String(error));
  const type =
    sqlstate === null
      ? NETWORK.test(`${fields.code ?? ''} ${fields.message}`)
        ? 'ConnectionFailed'
        : (context.otherwise ?? 'ServerError')
      : (TYPES.find(([pattern]) => pattern.test(sqlstate))?.[1] ?? context.otherwise ?? 'ServerError');
  const object = context.object ?? null;
  return new MigrationError(type, `While ${context.doing} on the ${context.server}: ${reason}`, { object, sqlstate });
}

function describe({ message, detail, hint }: ServerErrorFields): string {
  const sentence = (text: string) => (/[.!?]$/.test(text) ? text : `${text}.`);
  const parts = [message || 'the connection failed'];
  // "Failing row contains (…)" is the user's data, and this sentence goes into a history.
  if (detail !== undefined && !detail.startsWith('Failing row')) parts.push(detail);
  if (hint !== undefined) parts.push(hint);
  return parts.map(sentence).join(' ');
}
