import { LEDGER_SCHEMA } from '../contract.ts';
import { MigrationError } from '../domain/failure.ts';
import type { Session } from './connection.ts';

interface GenerationRow {
  state: 'open' | 'closing' | 'sealed' | 'streaming';
  snapshot: string;
}

/**
 * Reads a generation that must be open, and keeps it so until the transaction ends.
 * @throws MigrationError `SnapshotLost` when it is being closed or is not there.
 */
export async function holdOpenGeneration(
  target: Session,
  generation: number,
  lock: 'SHARE' | 'UPDATE' = 'SHARE',
): Promise<string> {
  const [row] = await target.query<GenerationRow>(
    `SELECT state, snapshot FROM ${LEDGER_SCHEMA}.generation WHERE number = $1 FOR ${lock}`,
    [generation],
  );
  if (row?.state === 'open') return row.snapshot;
  throw new MigrationError(
    'SnapshotLost',
    row === undefined
      ? `The ledger on the target has no generation ${generation}.`
      : `Generation ${generation} takes no more copies: it is ${row.state}.`,
  );
}
