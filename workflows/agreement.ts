import { condition, getExternalWorkflowHandle, setHandler, workflowInfo } from '@temporalio/workflow';
import { toApplicationFailure } from '../src/domain/application-failure.ts';
import { MigrationError } from '../src/domain/failure.ts';
import type { CutoverDecision, CutoverVote } from './messages.ts';
import { cutoverDecisionSignal, cutoverVoteSignal, DESCRIPTION } from './messages.ts';

/** One database's part in a cutover of several together; `Round` has the parent's. */
export class Agreement {
  readonly #database: string;
  readonly #decisions: CutoverDecision[] = [];

  constructor(database: string) {
    this.#database = database;
    setHandler(cutoverDecisionSignal, (decision) => void this.#decisions.push(decision), {
      description: DESCRIPTION.internal,
    });
  }

  /**
   * Votes, and waits until all have; what ends it is the parent's decision.
   * @throws MigrationError `PutBack`
   */
  async reach(round: number, vote: 'ready' | 'drained'): Promise<void> {
    await this.#vote({ database: this.#database, round, vote, reason: '' });
    const wanted = vote === 'ready' ? 'fence' : 'open';
    const heard = () =>
      this.#decisions.find((told) => told.round === round && [wanted, 'put-back'].includes(told.decision));
    await condition(() => heard() !== undefined);
    const told = heard();
    if (told?.decision === 'put-back') throw toApplicationFailure(new MigrationError('PutBack', told.reason));
  }

  async refuse(round: number, reason: string): Promise<void> {
    await this.#vote({ database: this.#database, round, vote: 'put-back', reason: `${this.#database}: ${reason}` });
  }

  async #vote(vote: CutoverVote): Promise<void> {
    const parent = workflowInfo().parent;
    if (parent === undefined) return;
    // One that has ended decides nothing any more: it cancels its children.
    await getExternalWorkflowHandle(parent.workflowId)
      .signal(cutoverVoteSignal, vote)
      .catch(() => undefined);
  }
}
