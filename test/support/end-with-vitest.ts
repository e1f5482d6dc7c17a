import process from 'node:process';

// Vitest's workers go on when it was killed, with tests and servers that nobody waits for.
process.once('disconnect', () => process.exit(1));
