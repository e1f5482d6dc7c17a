import { expect, it } from 'vitest';
import { stopRequestProblem } from '../../workflows/requests.ts';

it.each([[undefined], [null], [{}], [{ databases: ['shop'], reason: 'cutover', deadlineSeconds: 30 }]])(
  'takes %j',
  (request) => {
    expect(stopRequestProblem(request, ['shop', 'crm'])).toBeNull();
  },
);

it.each([
  ['now', 'stopReplication takes one JSON object'],
  [{ database: 'shop' }, 'stopReplication has no field "database".'],
  [{ databases: 'shop' }, 'must be a list of names'],
  [{ databases: ['shop', 'stranger'] }, 'This migration has no database "stranger".'],
  [{ reason: 1 }, 'The field "reason" of stopReplication must be a text.'],
  ...[0, 0.5, 86_401, '60', null].map((deadlineSeconds): [unknown, string] => [
    { deadlineSeconds },
    'The field "deadlineSeconds" of stopReplication must be a whole number from 1 to 86400.',
  ]),
])('refuses %j with a sentence', (request, sentence) => {
  expect(stopRequestProblem(request, ['shop', 'crm'])).toContain(sentence);
});
