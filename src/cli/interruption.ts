import process from 'node:process';

/** Aborted by the first SIGINT, SIGTERM or SIGHUP; the second one ends the process at once. */
export function interruption(onFirst: () => void): AbortSignal {
  const stop = new AbortController();
  const onSignal = () => {
    if (stop.signal.aborted) process.exit(130);
    // Behind the ^C that a terminal shows.
    if (process.stderr.isTTY) process.stderr.write('\n');
    stop.abort();
    onFirst();
  };
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, onSignal);
  return stop.signal;
}
