import { setHandler } from '@temporalio/workflow';
import type { CompleteRequest, RollbackRequest } from '../src/contract.ts';
import { completeSignal, completeUpdate, DESCRIPTION, rollbackSignal, rollbackUpdate } from './messages.ts';
import { refuse } from './refuse.ts';
import { completeProblem, rollbackProblem } from './requests.ts';

export type Decision = { kind: 'rollback'; request: RollbackRequest } | { kind: 'complete'; request: CompleteRequest };

/** What an operator decides while the source follows the target. `reverses`: whether it does so now. */
export class Decisions {
  #decision: Decision | null = null;

  constructor(database: string, reverses: () => boolean) {
    const now = () => (reverses() ? null : `The source of database "${database}" does not follow the target now.`);
    // Nobody validates a signal.
    const hear = (decision: Decision, problem: string | null): void => {
      if (reverses() && problem === null) this.#decision = decision;
    };
    setHandler(rollbackSignal, (request) => hear({ kind: 'rollback', request }, rollbackProblem(request)), {
      description: DESCRIPTION.internal,
    });
    setHandler(completeSignal, (request) => hear({ kind: 'complete', request }, completeProblem(request)), {
      description: DESCRIPTION.internal,
    });
    setHandler(
      rollbackUpdate,
      (request) => {
        hear({ kind: 'rollback', request: request ?? {} }, null);
        return `${database} goes back to the source.`;
      },
      {
        description: DESCRIPTION.rollback,
        validator: (request: RollbackRequest | undefined) => refuse(rollbackProblem(request) ?? now()),
      },
    );
    setHandler(
      completeUpdate,
      (request) => {
        hear({ kind: 'complete', request: request ?? {} }, null);
        return `${database} stays on the target.`;
      },
      {
        description: DESCRIPTION.complete,
        validator: (request: CompleteRequest | undefined) => refuse(completeProblem(request) ?? now()),
      },
    );
  }

  get decision(): Decision | null {
    return this.#decision;
  }

  forget(): void {
    this.#decision = null;
  }
}
