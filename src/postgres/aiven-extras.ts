import { LEDGER_SCHEMA } from '../contract.ts';
import type { Session } from './connection.ts';
import { recordEvent, recordWarning } from './ledger.ts';
import { toMigrationError } from './sqlstate.ts';
import { maySubscribe, readExtras } from './subscription-commands.ts';

/** The step name under which the ledger keeps that the extension is ours to drop. */
const STEP = 'aiven_extras';

/** Makes the extension where our role cannot subscribe without it, and books that in the same transaction. */
export async function provideExtras(target: Session): Promise<void> {
  if (await maySubscribe(target)) return;
  await target.transaction(async () => {
    // Two attempts at once: the second one waits here, and then finds it made.
    await target.query(`SELECT pg_advisory_xact_lock(hashtext('${LEDGER_SCHEMA}'), hashtext('${STEP}'))`);
    const { available, installed } = await readExtras(target);
    if (installed || !available) return;
    await target.query('CREATE EXTENSION aiven_extras CASCADE');
    await recordEvent(target, STEP, 'made for the subscription');
  });
}

/** Drops the extension if it was made for us. Somebody who uses it by now keeps it, and the report says so. */
export async function dropExtras(target: Session): Promise<void> {
  const booked = await target.query(`SELECT FROM ${LEDGER_SCHEMA}.event WHERE step = $1`, [STEP]);
  if (booked.length === 0) return;
  try {
    await target.transaction(async () => {
      await target.query('DROP EXTENSION IF EXISTS aiven_extras');
      // CREATE EXTENSION makes the schema that its control file names, but does not make it a part of the extension.
      await target.query('DROP SCHEMA IF EXISTS aiven_extras');
      await forget(target);
    });
  } catch (error) {
    const failure = toMigrationError(error, { server: 'target', doing: 'dropping the extension aiven_extras' });
    if (failure.retryable) throw failure;
    await recordWarning(
      target,
      'dropReplication',
      `The extension aiven_extras, which was made for the subscription, stays on the target. ${failure.message}`,
    );
    await forget(target);
  }
}

const forget = (target: Session): Promise<unknown> =>
  target.query(`DELETE FROM ${LEDGER_SCHEMA}.event WHERE step = $1`, [STEP]);
