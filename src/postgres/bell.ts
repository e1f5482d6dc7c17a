import { LEDGER_SCHEMA } from '../contract.ts';
import type { Session } from './connection.ts';

/** Wakes, when the caller's transaction commits, whoever of ours waits on this database for what it has done. */
export async function ring(target: Session): Promise<void> {
  await target.query(`NOTIFY ${LEDGER_SCHEMA}`);
}

/** Makes a wait shorter, and no more than that: whoever waits for it looks by itself after a while too. */
export class Bell {
  #hasRung = false;
  #wake: () => void = () => undefined;

  /** Hears what rings from now on. */
  static async on(target: Session): Promise<Bell> {
    const bell = new Bell();
    target.client.on('notification', () => {
      bell.#hasRung = true;
      bell.#wake();
    });
    await target.query(`LISTEN ${LEDGER_SCHEMA}`);
    return bell;
  }

  /** At once when it has rung since the last time: then one look may be for nothing, but none comes too late. */
  heard(): Promise<void> {
    const rung = this.#hasRung ? Promise.resolve() : new Promise<void>((resolve) => (this.#wake = resolve));
    this.#hasRung = false;
    return rung;
  }
}
