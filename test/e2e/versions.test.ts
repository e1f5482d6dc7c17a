import { expect, test } from 'vitest';
import { hasOldServers } from '../../lab/tools.ts';
import { useServer } from '../support/servers.ts';
import { migratePair } from '../support/version-pair.ts';

const OLDEST = hasOldServers ? 10 : 14;

/** The ends of what `npm run test:matrix` tries: the oldest source with the oldest and the newest target, and the newest. */
test.each([
  [OLDEST, 14],
  [OLDEST, 18],
  [18, 18],
])(
  'everything that a server of %i can have arrives on one of %i, while it is written to',
  { timeout: 180_000 },
  async (from, to) => {
    const report = await migratePair(await useServer(from, 'source'), await useServer(to));
    expect(report.status).toBe('done');
  },
);
