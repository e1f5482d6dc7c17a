import { toApplicationFailure } from '../src/domain/application-failure.ts';
import { MigrationError } from '../src/domain/failure.ts';

/** An update that makes no sense is refused before it enters the history. */
export function refuse(problem: string | null): void {
  if (problem !== null) throw toApplicationFailure(new MigrationError('InvalidRequest', problem));
}
