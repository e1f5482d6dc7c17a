import type pg from 'pg';
import type { Session } from './connection.ts';

/** One simple query that is on its way. */
export interface Script {
  /** The command tags so far, such as "COPY 12": they tell how far the server came. */
  readonly tags: readonly string[];
  /** Resolves when the server is ready for the next query. */
  readonly finished: Promise<void>;
}

const nothing = (): void => undefined;

/**
 * Sends several statements in one message, in one round trip, and counts what is done of them. Rows are ignored. The
 * data of COPY commands is the business of the caller; `pg`'s own query object would answer them with CopyFail.
 */
export function sendScript(session: Session, sql: string): Script {
  const tags: string[] = [];
  const finished = new Promise<void>((resolve, reject) => {
    session.client.query({
      submit: (connection: pg.Connection) => {
        (connection as unknown as { query(text: string): void }).query(sql);
      },
      handleRowDescription: nothing,
      handleDataRow: nothing,
      handleEmptyQuery: nothing,
      handleCopyInResponse: nothing,
      handleCopyData: nothing,
      handleCommandComplete: (message: { text: string }) => tags.push(message.text),
      handleError: (error: Error) => reject(error),
      handleReadyForQuery: () => resolve(),
    });
  });
  return { tags, finished };
}

export interface Step {
  /** For people: which object. */
  label: string;
  sql: string;
}

/**
 * Runs all steps in one round trip, inside the caller's transaction.
 * @throws what `failed` makes of the server's error and of the step that caused it.
 */
export async function runSteps(
  session: Session,
  steps: readonly Step[],
  failed: (error: unknown, step: Step | undefined) => Error,
): Promise<void> {
  if (steps.length === 0) return;
  // A step may hold several statements, so each ends with a statement that no step holds: its tag counts the steps.
  const script = sendScript(session, steps.map(({ sql }) => `${sql}\n;SELECT;`).join('\n'));
  try {
    await script.finished;
  } catch (error) {
    throw failed(error, steps[script.tags.filter((tag) => tag.startsWith('SELECT')).length]);
  }
}
