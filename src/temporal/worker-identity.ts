import { hostname } from 'node:os';
import process from 'node:process';

/** The SDK's workers are called pid@host. */
export const isOnThisHost = (identity: string): boolean =>
  /^\d+@/.test(identity) && identity.endsWith(`@${hostname()}`);

/** Whether a worker of this machine is gone; a number that another process has by now is taken for it. */
export function hasDiedHere(identity: string): boolean {
  if (!isOnThisHost(identity)) return false;
  try {
    process.kill(Number.parseInt(identity, 10), 0);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH';
  }
}
