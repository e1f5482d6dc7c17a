/** The command line asks for something that cannot be; `message` is one sentence. Exit code 2: nothing was done. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}
